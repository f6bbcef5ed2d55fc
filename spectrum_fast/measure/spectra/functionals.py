"""From sliced band matrices to the functionals of their scores, each with the error that rounding and shifts imply.

The order of steps: a first grid of counts; multisection of the brackets of the order statistics; one evaluation at the
thresholds, the starts of the sums and the edges of the histogram; one evaluation of all contour nodes. Tensor
operations alone, a leading dimension for the matrices of a batch, and one transfer to the host at the end (beside what
a :class:`Schedule` asks that waits).
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.binning import histogram_of
from spectrum_fast.measure.spectra.contour import Intervals, integrate
from spectrum_fast.measure.spectra.counts import CountTable
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import (
    Criterion,
    ErrorBounds,
    OrderStatistics,
    SingularValues,
    relative_error,
)
from spectrum_fast.measure.spectra.schedule import GEOMETRIC_POINTS, LOW_POINTS, Schedule
from spectrum_fast.measure.spectra.thresholds import Band, Ordered, Split


@dataclass(frozen=True)
class Functionals:
    """Order statistics, threshold, counts and sums of one spectrum, with absolute error bounds where they matter."""

    statistics: OrderStatistics
    threshold: float
    n_signal: int
    n_noise: int
    signal_sum: float
    noise_sum: float
    errors: OrderStatistics
    """Bounds on the absolute error of each of ``statistics``."""
    threshold_shift: float
    """The threshold of the true quartiles is no farther from this one."""
    signal_error: float
    noise_error: float
    n_undecided: int
    """Values so near the threshold that their side is not known."""
    largest_undecided: float
    """None of those is larger."""
    threshold_error: float
    """Relative, to the power that the threshold has in the score; 0 where the score knows only the sums."""
    sum_of_squares: float
    """Sum of squares that the method's own matrix or values imply."""
    histogram: Histogram
    """Of the values, from counts at its inner edges."""
    mp_rank: int
    """Values above the edge of noise."""
    mp_undecided: int
    """Values so near that edge that their side is not known."""
    singular_values: SingularValues | None = None
    """All of them, where they were asked for."""
    consistent: bool = True
    """Trace and norm came through the method unchanged; if not, a kernel is at fault and nothing here is trusted."""

    def score_error(self) -> float:
        """Bound on the relative error of ``signal_sum / noise_sum / s_max``; infinite where nothing can be said.

        A sum that is for certain empty is left out: of a noise-free matrix, or of one with a score of zero, the bound
        is that of what remains.
        """
        if not self.consistent:
            return math.inf
        certain = self.n_undecided == 0
        undecided = self.n_undecided * self.largest_undecided
        parts = [(self.errors.s_max, self.statistics.s_max), (self.threshold_error, 1.0)]
        if not (certain and self.noise_sum == 0.0):
            parts.append((self.noise_error + undecided, self.noise_sum))
        if not (certain and self.n_signal == 0):
            parts.append((self.signal_error + undecided, self.signal_sum))
        return relative_error(parts)

    def field_errors(self, scale: float) -> ErrorBounds:
        """Bounds on the absolute error of each number, all of them times ``scale``, a power of two."""
        undecided = self.n_undecided * self.largest_undecided
        bounds = {**asdict(self.errors), "threshold": self.threshold_shift}
        bounds |= {"signal_sum": self.signal_error + undecided, "noise_sum": self.noise_error + undecided}
        lost = math.ulp(0.0) if scale < 1 else 0.0  # what is below the least numbers is cut off
        stated = {key: error * scale + lost if self.consistent else math.inf for key, error in bounds.items()}
        rounded = {key: _round_up(error) for key, error in stated.items()}
        return ErrorBounds(**rounded, n_undecided=self.n_undecided, mp_rank=self.mp_undecided)


def _round_up(bound: float) -> float:
    """To three digits, which are short in a file; the largest number there is where there is no bound."""
    return min(float(f"{1.006 * bound:.2e}"), sys.float_info.max)


def slice_bands(band: Band, criterion: Criterion, n_max: int, tolerance: float, schedule: Schedule) -> Tensor:
    """Functionals of each matrix from counts and log-determinants alone, as rows for :func:`read_functionals`.

    Args:
        band: the bands.
        criterion: the rule that gives the threshold.
        n_max: long side of the weights.
        tolerance: relative accuracy wanted of a score; the quadrature spends a tenth of it on each sum.
        schedule: how often the host is asked.
    """
    size, rounding = band.size, band.rounding
    grid = _first_grid(band, rounding.floor(), schedule)
    table = CountTable.of(grid, band.slices.below(grid), size)
    ordered = Ordered.of(band, table, tolerance, schedule)
    split = Split.of(band, table, ordered, criterion, n_max)
    if band.refinement is not None:
        ordered = ordered.refined(band, band.refinement)
        split = Split.of(band, table, ordered, criterion, n_max).decided(band, band.refinement, tolerance, schedule)
    statistics, errors, thresholds = ordered.statistics, ordered.statistics_errors, split.thresholds
    t, s_min, s_max = thresholds.middle, statistics.s_min, statistics.s_max
    noise, signal = _sums(band, split, tolerance)
    bins, (n_under, n_up_to_edge, n_over) = split.bins, split.table.below(split.edges).unbind(1)
    mp_undecided = n_over - torch.where(split.edges[:, 0] > 0, n_under, 0.0)
    numbers: list[Any] = [s_min, statistics.q25, statistics.q50, statistics.q75, s_max, t, split.n_noise, *noise]
    numbers += [*signal, *errors[:4], errors[4] + rounding.largest_more(ordered.hi[:, -1:])[:, 0]]
    numbers += [torch.maximum(t - thresholds.lowest, thresholds.highest - t), split.n_undecided, split.special[:, 2]]
    numbers += [thresholds.relative, band.band_traces, band.consistent]
    numbers += [bins.start, bins.knee, bins.end, bins.linear_bins, size - n_up_to_edge, mp_undecided]
    counts = bins.counts(split.table.below(bins.inner), size)
    return torch.cat([torch.stack([one.to(torch.float64) for one in numbers], 1), counts], 1)


def read_functionals(columns: Tensor, size: int) -> list[Functionals]:
    """One record a matrix from its numbers (m, 28 + bins), in the order of :func:`slice_bands`; the one wait."""
    records = []
    for row in columns.tolist():
        finite = all(math.isfinite(number) for number in row)  # NaN is never a score
        numbers = row if finite else [number if math.isfinite(number) else 0.0 for number in row]
        s_min, q25, q50, q75, s_max, t, n_noise, noise_sum, noise_error = numbers[:9]
        signal_sum, signal_error, *errors = numbers[9:16]
        threshold_shift, n_undecided, largest_undecided, threshold_error = numbers[16:20]
        sum_of_squares, consistent, start, knee, end, linear_bins, mp_rank, mp_undecided = numbers[20:28]
        records.append(
            Functionals(
                statistics=OrderStatistics(s_min, q25, q50, q75, s_max),
                threshold=t,
                n_signal=size - int(n_noise),
                n_noise=int(n_noise),
                signal_sum=signal_sum,
                noise_sum=noise_sum,
                errors=OrderStatistics(*errors),
                threshold_shift=threshold_shift,
                signal_error=signal_error,
                noise_error=noise_error,
                n_undecided=int(n_undecided),
                largest_undecided=largest_undecided,
                threshold_error=threshold_error,
                sum_of_squares=sum_of_squares,
                histogram=histogram_of(start, knee, end, int(linear_bins), numbers[28:], size),
                mp_rank=int(mp_rank),
                mp_undecided=int(mp_undecided),
                consistent=bool(consistent) and finite,
            )
        )
    return records


def _first_grid(band: Band, floor: Tensor, schedule: Schedule) -> Tensor:
    """Points over the bulk, up to above the largest value (``s_max^2 <= ||G||_F``), and down to the rounding floor.

    Small values weigh most in a bound.
    """
    bulk, top = 3 * torch.sqrt(band.traces / band.size), 1.001 * torch.sqrt(band.norms)
    bulk = torch.minimum(bulk, top)
    points = schedule.linear_points(len(bulk))
    linear = bulk[:, None] * torch.linspace(0, 1, points, dtype=torch.float64, device=bulk.device)
    geometric = _by_ratio(bulk, top, GEOMETRIC_POINTS)
    first = linear[:, 1]
    low = _by_ratio(torch.minimum(floor, first).clamp(min=torch.finfo(torch.float64).tiny), first, LOW_POINTS)
    return torch.cat([linear, geometric, low], dim=1)


def _by_ratio(a: Tensor, b: Tensor, count: int) -> Tensor:
    """``count`` points from beyond a (m,) up to b (m,), each larger than the one before by the same ratio."""
    exponents = torch.arange(1, count + 1, dtype=torch.float64, device=a.device) / count
    points = a[:, None] * (b / a)[:, None] ** exponents
    points[:, -1] = b
    return points


def _sums(band: Band, split: Split, tolerance: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Sums of the values below and above the threshold, each (m,) with its error bound.

    Three intervals are integrated over: noise, signal, and outliers, which must not set the scale of the others. Values
    too small to be told from rounding (and computed eigenvalues below zero) lie under the starts.

    Args:
        band: the bands.
        split: at their thresholds.
        tolerance: relative accuracy wanted of a score.
    """
    table, count = split.table, split.n_noise
    _, t, _, noise_start, signal_start, top = split.special.unbind(1)
    n_noise_start = table.below(noise_start[:, None])[:, 0]
    noise_end, signal_end = torch.maximum(t, noise_start), torch.maximum(top, signal_start)
    outliers = torch.minimum(table.outlier_split(signal_start, top), signal_end)
    starts = torch.stack([noise_start, signal_start], 1)
    inside = table.inside(starts, torch.stack([noise_end, signal_end], 1))
    least = torch.maximum(table.least_sums(inside), torch.stack([n_noise_start, table.size - count], 1) * starts)
    least_noise = torch.maximum(least[:, 0], 1e-3 * t)
    least_signal = torch.where(outliers < signal_end, 0.5, 1.0) * least[:, 1]
    a, b = torch.cat([starts, outliers[:, None]], 1), torch.stack([noise_end, outliers, signal_end], 1)
    intervals = Intervals.of(table, a, b, torch.stack([least_noise, least_signal, least_signal], 1), tolerance)
    integrals, errors = integrate(band.slices, intervals), intervals.error()
    rounded = table.rounding_errors(inside, band.rounding)
    n_below = intervals.n_below
    rounded += split.moved[:, None]
    rounded[:, 0] += n_below[:, 0] * band.rounding.rise(noise_start[:, None])[:, 0]
    noise = _sum_below(count, t, noise_start, n_below[:, 0], integrals[:, 0], errors[:, 0] + rounded[:, 0])
    of_signal, errors_of_signal = integrals[:, 1:].sum(1), errors[:, 1:].sum(1) + rounded[:, 1]
    signal = _sum_above(count, table.size, t, top, signal_start, n_below[:, 1], of_signal, errors_of_signal)
    return noise, signal


def _sum_below(
    count: Tensor, t: Tensor, start: Tensor, n_below: Tensor, integral: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of the ``count`` values below t, and its error bound.

    Those under the start of the integral are counted, valued at the middle between it and zero, and their doubt goes
    into the bound.
    """
    half = 0.5 * n_below * start
    hidden, middle = start >= t, 0.5 * count * t  # everything below t is below the rounding floor
    total, error = torch.where(hidden, middle, count * t - half - integral), torch.where(hidden, middle, error + half)
    return torch.where(count == 0, 0.0, total), torch.where(count == 0, 0.0, error)


def _sum_above(
    count: Tensor, size: int, t: Tensor, top: Tensor, start: Tensor, n_below: Tensor, integral: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of the values at or above t, of which ``count`` lie below, and its error bound; none lies above ``top``."""
    inside = size - count
    hidden_below = 0.5 * (n_below - count)  # where the threshold itself lies under the rounding floor
    total = size * top - n_below * start - integral + hidden_below * (t + start)
    error = error + hidden_below * (start - t)
    hidden, half = start >= top, 0.5 * inside
    total, error = torch.where(hidden, half * (t + top), total), torch.where(hidden, half * (top - t), error)
    empty = (inside == 0) | (top <= t)
    return torch.where(empty, 0.0, total), torch.where(empty, 0.0, error)
