"""The schedule: from a batch of bands to one record a matrix, in tensor operations alone.

It follows :func:`spectrum_fast.measure.spectra.functionals.slice_functionals` step by step, with a fixed number of
rounds where that one looks at what it has found. One device pass is: a first grid; some rounds of multisection of the
brackets of the order statistics; one evaluation at the thresholds, the starts of the sums and the edges of the
histogram; one evaluation of all contour nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.measure.spectra.batched.bins import BatchBins, bins_of
from spectrum_fast.measure.spectra.batched.operations import Slices, to_device
from spectrum_fast.measure.spectra.batched.rounding import BatchRounding
from spectrum_fast.measure.spectra.batched.sums import BatchInterval, integrate
from spectrum_fast.measure.spectra.batched.table import BatchTable
from spectrum_fast.measure.spectra.functionals import Functionals, interpolation_ranks
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics

_LINEAR_POINTS, _GEOMETRIC_POINTS, _LOW_POINTS = 48, 11, 8
"""First grid: evenly over the bulk (at least), by ratio to the top, by ratio down to the rounding floor."""
_PROGRAMS = 528
"""Shifts that run beside each other on an H100 or H200 without taking turns: a warp for each scheduler of its 132
multiprocessors. Fewer cost as much; more make a round longer, and its points are worth only their logarithm."""
_NARROWING = 1e8
"""How much narrower the brackets get: from a 48th of the bulk to a fiftieth of float32's rounding."""


@dataclass(frozen=True)
class Totals:
    """What is known of each matrix of a batch before it is sliced: trace and Frobenius norm of its Gram, both (m,)."""

    trace: Tensor
    norm: Tensor


def slice_batch(
    slices: Slices, totals: Totals, criterion: Criterion, n_max: int, rounding: BatchRounding, tolerance: float
) -> list[Tensor]:
    """Functionals of each matrix as columns (m,) or (m, k) of float64, for :func:`read_records`; no host wait.

    Args:
        slices: the bands.
        totals: their Gram matrices' trace and norm.
        criterion: the rule that gives the threshold; its arithmetic is done on tensors.
        n_max: long side of the weights.
        rounding: how far each computed spectrum may be from the true one.
        tolerance: relative accuracy wanted of a score; the integrals spend 0.3 % of it on each sum.
    """
    size = slices.size
    floor = rounding.floor()
    grid = _first_grid(totals, size, floor)
    table = BatchTable.of(grid, slices.below(grid), size)

    quantiles = {fraction: interpolation_ranks(size, fraction) for fraction in (0.25, 0.5, 0.75)}
    ranks = sorted({0, size - 1, *(rank for lo, hi, _ in quantiles.values() for rank in (lo, hi))})
    lo, hi = _multisect(slices, table, ranks)
    value, error = 0.5 * (lo + hi), 0.5 * (hi - lo) + rounding.uncertainty(hi)
    s_max_error = error[:, -1] + rounding.largest_more(hi[:, -1])

    def quantile(of: Tensor, fraction: float) -> Tensor:
        below, above, weight = quantiles[fraction]
        return (1 - weight) * of[:, ranks.index(below)] + weight * of[:, ranks.index(above)]

    def statistics(signs: tuple[int, int, int]) -> OrderStatistics:
        q25, q50, q75 = (
            quantile(value, fraction) + sign * quantile(error, fraction)
            for fraction, sign in zip(quantiles, signs, strict=True)
        )
        return OrderStatistics(value[:, 0], q25, q50, q75, value[:, -1])  # pyright: ignore[reportArgumentType]

    def threshold_of(found: OrderStatistics) -> Tensor:
        return torch.as_tensor(criterion.threshold(found, size, n_max))

    middle = statistics((0, 0, 0))
    t = threshold_of(middle)
    corners = torch.stack(
        [threshold_of(statistics((s25, s50, s75))) for s25 in (-1, 1) for s50 in (-1, 1) for s75 in (-1, 1)]
    )
    width = 0.5 * (corners.amax(0) - corners.amin(0))
    threshold_error = torch.where(t > 0, criterion.threshold_power * width / t, 0.0)
    doubt = rounding.uncertainty(t[:, None])[:, 0]
    lowest, highest = (corners.amin(0) - doubt).clamp(min=0), corners.amax(0) + doubt
    noise_start, top = torch.maximum(floor, lo[:, 0]), hi[:, -1]
    signal_start = torch.maximum(t, floor)
    bins = bins_of(middle)
    points = torch.cat([torch.stack([lowest, t, highest, noise_start, signal_start, top], 1), bins.inner], 1)
    table = table.with_counts(points, slices.below(points))
    n_noise, n_undecided = table.at(t), table.at(highest) - torch.where(lowest > 0, table.at(lowest), 0)

    split = table.outlier_split(signal_start, top)
    noise_end, signal_end = torch.maximum(t, noise_start), torch.maximum(top, signal_start)
    split = torch.minimum(split, signal_end)
    least_noise = torch.maximum(table.sum_between(noise_start, noise_end), 1e-3 * t)
    least_signal = torch.maximum(table.sum_between(signal_start, signal_end), (size - n_noise) * signal_start)
    intervals = [
        BatchInterval.of(table, noise_start, noise_end, least_noise, tolerance),
        BatchInterval.of(table, signal_start, split, least_signal, tolerance),
        BatchInterval.of(table, split, signal_end, least_signal, tolerance),
    ]
    integrals = integrate(slices, intervals)
    noise_sum, noise_error = _sum_below(table, t, intervals[0], integrals[0], rounding)
    signal_sum, signal_error = _sum_above(table, t, top, intervals[1:], integrals[1:], rounding)
    numbers: list[Any] = [value[:, 0], middle.q25, middle.q50, middle.q75, value[:, -1], t, n_noise, noise_sum]
    numbers += [noise_error, signal_sum, signal_error, s_max_error, n_undecided, highest, threshold_error]
    numbers += [bins.start, bins.knee, bins.end, bins.linear_bins]
    return [torch.stack(numbers, dim=1), _bin_counts(table, bins, size)]


def read_records(columns: Tensor, size: int, sums_of_squares: Tensor, consistent: Tensor) -> list[Functionals]:
    """Functionals of each matrix from what :func:`slice_batch` returned, side by side, on the host.

    Args:
        columns: (m, 19 + bins) float64.
        size: number of singular values.
        sums_of_squares: (m,) trace of each band.
        consistent: (m,) bool, whether trace and norm came through.
    """
    records = []
    for row, total, sound in zip(columns.tolist(), sums_of_squares.tolist(), consistent.tolist(), strict=True):
        finite = all(math.isfinite(number) for number in row)  # NaN is never a score
        numbers = row if finite else [number if math.isfinite(number) else 0.0 for number in row]
        s_min, q25, q50, q75, s_max, t, n_noise, noise_sum, noise_error = numbers[:9]
        signal_sum, signal_error, s_max_error, n_undecided, largest_undecided, threshold_error = numbers[9:15]
        start, knee, end, linear_bins = numbers[15:19]
        histogram = _histogram(start, knee, end, int(linear_bins), numbers[19:], size)
        records.append(
            Functionals(
                statistics=OrderStatistics(s_min, q25, q50, q75, s_max),
                threshold=t,
                n_signal=size - int(n_noise),
                n_noise=int(n_noise),
                signal_sum=signal_sum,
                noise_sum=noise_sum,
                signal_error=signal_error,
                noise_error=noise_error,
                s_max_error=s_max_error,
                n_undecided=int(n_undecided),
                largest_undecided=largest_undecided,
                threshold_error=threshold_error,
                sum_of_squares=total,
                histogram=histogram,
                consistent=bool(sound) and finite,
            )
        )
    return records


def _histogram(start: float, knee: float, end: float, linear_bins: int, counts: list[float], size: int) -> Histogram:
    if linear_bins == 1 or not 0 <= start <= knee <= end:
        return Histogram(max(start, 0.0), max(start, end), max(start, end), 1, (size,))
    return Histogram(start, knee, end, linear_bins, tuple(int(count) for count in counts))


def _first_grid(totals: Totals, size: int, floor: Tensor) -> Tensor:
    """Points over the bulk, up to above the largest value (``s_max^2 <= ||G||_F``), and down to the rounding floor."""
    bulk, top = 3 * torch.sqrt(totals.trace / size), 1.001 * torch.sqrt(totals.norm)
    bulk = torch.minimum(bulk, top)
    points = _linear_points(len(bulk))
    linear = bulk[:, None] * torch.linspace(0, 1, points, dtype=torch.float64, device=bulk.device)
    geometric = _by_ratio(bulk, top, _GEOMETRIC_POINTS)
    first = linear[:, 1]
    low = _by_ratio(torch.minimum(floor, first).clamp(min=torch.finfo(torch.float64).tiny), first, _LOW_POINTS)
    return torch.cat([linear, geometric, low], dim=1)


def _linear_points(matrices: int) -> int:
    """Points over the bulk of each: what runs beside each other anyway, and for many matrices the least."""
    return max(_LINEAR_POINTS, _PROGRAMS // matrices - _GEOMETRIC_POINTS - _LOW_POINTS)


def _by_ratio(a: Tensor, b: Tensor, count: int) -> Tensor:
    """``count`` points from beyond a (m,) up to b (m,), each larger than the one before by the same ratio."""
    exponents = torch.arange(1, count + 1, dtype=torch.float64, device=a.device) / count
    points = a[:, None] * (b / a)[:, None] ** exponents
    points[:, -1] = b
    return points


def _multisect(slices: Slices, table: BatchTable, ranks: list[int]) -> tuple[Tensor, Tensor]:
    """Brackets lo, hi (m, ranks) of the order statistics, after a fixed number of rounds."""
    matrices, device = table.points.shape[0], table.points.device
    wanted = to_device(ranks, torch.int64, device)
    lo, hi = table.bracket(wanted)
    interior = int(np.clip(_PROGRAMS // (matrices * len(ranks)), 3, 255))
    rounds = math.ceil(math.log(_NARROWING * _LINEAR_POINTS / _linear_points(matrices)) / math.log(interior + 1))
    fractions = torch.arange(1, interior + 1, dtype=torch.float64, device=device) / (interior + 1)
    for _ in range(rounds):
        points = lo[..., None] + (hi - lo)[..., None] * fractions
        counts = slices.below(points.flatten(1)).view_as(points)
        passed = (torch.cummax(counts, dim=-1).values <= wanted[:, None]).sum(-1, keepdim=True)
        edges = torch.cat([lo[..., None], points, hi[..., None]], dim=-1)
        lo, hi = edges.gather(-1, passed)[..., 0], edges.gather(-1, passed + 1)[..., 0]
    return lo, hi


def _sum_below(
    table: BatchTable, t: Tensor, interval: BatchInterval, integral: Tensor, rounding: BatchRounding
) -> tuple[Tensor, Tensor]:
    """Sum of the values below t and its error bound; see the single-matrix form for the reasoning."""
    count, start = table.at(t), interval.a
    total = count * t - interval.n_below * start - integral + 0.5 * interval.n_below * start
    error = interval.error() + 0.5 * interval.n_below * start + table.rounding_error(start, t, rounding)
    hidden = start >= t  # everything below t is below the rounding floor
    total, error = torch.where(hidden, 0.5 * count * t, total), torch.where(hidden, 0.5 * count * t, error)
    return torch.where(count == 0, 0.0, total), torch.where(count == 0, 0.0, error)


def _sum_above(
    table: BatchTable,
    t: Tensor,
    top: Tensor,
    intervals: list[BatchInterval],
    integrals: list[Tensor],
    rounding: BatchRounding,
) -> tuple[Tensor, Tensor]:
    """Sum of the values at or above t, and its error bound."""
    count, start = table.at(t), intervals[0].a
    inside = table.size - count
    below_start = intervals[0].n_below
    total = table.size * top - below_start * start - sum(integrals)
    total = total + 0.5 * (below_start - count) * (t + start)
    error = 0.5 * (below_start - count) * (start - t) + table.rounding_error(start, top, rounding)
    for interval in intervals:
        error = error + interval.error()
    hidden = start >= top
    total = torch.where(hidden, 0.5 * inside * (t + top), total)
    error = torch.where(hidden, 0.5 * inside * (top - t), error)
    empty = (inside == 0) | (top <= t)
    return torch.where(empty, 0.0, total), torch.where(empty, 0.0, error)


def _bin_counts(table: BatchTable, bins: BatchBins, size: int) -> Tensor:
    """Values in each bin, (m, bins) float64."""
    position = torch.searchsorted(table.points, bins.inner.contiguous()).clamp(max=table.points.shape[1] - 1)
    below = table.counts.gather(1, position)
    ends = torch.zeros_like(below[:, :1])
    return torch.diff(torch.cat([ends, below, ends + size], dim=1), dim=1).to(torch.float64)
