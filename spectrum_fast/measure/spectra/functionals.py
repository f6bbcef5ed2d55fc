"""From sliced band matrices to the functionals of their scores, each with the error that rounding and shifts imply.

The order of steps: a first grid of counts; multisection of the brackets of the order statistics; one evaluation at the
thresholds, the starts of the sums and the edges of the histogram; one evaluation of all contour nodes. Array
operations alone, a leading dimension for the matrices of a batch, and one transfer to the host at the end (beside what
a :class:`Schedule` asks that waits).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from spectrum_fast.measure.spectra.arrays import Array, columns, functions_of, steps
from spectrum_fast.measure.spectra.binning import histogram_of
from spectrum_fast.measure.spectra.contour import SHARE, Lines, excess
from spectrum_fast.measure.spectra.counts import CountTable
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import (
    Criterion,
    ErrorBounds,
    OrderStatistics,
    SingularValues,
    relative_error,
)
from spectrum_fast.measure.spectra.refinement import WORTH_REFINING
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
        bounds = {**vars(self.errors), "threshold": self.threshold_shift}
        bounds |= {"signal_sum": self.signal_error + undecided, "noise_sum": self.noise_error + undecided}
        lost = math.ulp(0.0) if scale < 1 else 0.0  # what is below the least numbers is cut off
        stated = {key: error * scale + lost if self.consistent else math.inf for key, error in bounds.items()}
        rounded = {key: _round_up(error) for key, error in stated.items()}
        return ErrorBounds(**rounded, n_undecided=self.n_undecided, mp_rank=self.mp_undecided)


def _round_up(bound: float) -> float:
    """To three digits, which are short in a file; the largest number there is where there is no bound."""
    return min(float(f"{1.006 * bound:.2e}"), sys.float_info.max)


def slice_bands(band: Band, criterion: Criterion, n_max: int, tolerance: float, schedule: Schedule) -> Array:
    """Functionals of each matrix from counts and log-determinants alone, as rows for :func:`read_functionals`.

    Args:
        band: the bands.
        criterion: the rule that gives the threshold.
        n_max: long side of the weights.
        tolerance: relative accuracy wanted of a score; the quadrature spends a tenth of it on each sum.
        schedule: how often the host is asked.
    """
    size, rounding = band.size, band.rounding
    grid = _first_grid(band, schedule)
    table = CountTable.of(grid, band.slices.below(grid), size)
    ordered = Ordered.of(band, table, tolerance, schedule)
    split = Split.of(band, table, ordered, criterion, n_max)
    if band.refinement is not None and bool(band.consistent[0]) and 0 < split.n_undecided[0] <= WORTH_REFINING:
        ordered = ordered.refined(band, band.refinement, criterion, n_max)
        split = split.moved_to(band, ordered, criterion, n_max).decided(band, band.refinement, tolerance, schedule)
    statistics, errors, thresholds = ordered.statistics, ordered.statistics_errors, split.thresholds
    xp, t, s_min, s_max = functions_of(grid), thresholds.middle, statistics.s_min, statistics.s_max
    noise, signal = _sums(band, split, tolerance)
    bins = split.bins
    below = split.table.below(xp.concatenate([split.edges, bins.inner], 1))
    n_under, n_up_to_edge, n_over = below[:, 0], below[:, 1], below[:, 2]
    mp_undecided = n_over - xp.where(split.edges[:, 0] > 0, n_under, 0.0)
    numbers: list[Any] = [s_min, statistics.q25, statistics.q50, statistics.q75, s_max, t, split.n_noise, *noise]
    numbers += [*signal, *errors[:4], errors[4] + rounding.largest_more(ordered.hi[:, -1])]
    numbers += [xp.maximum(t - thresholds.lowest, thresholds.highest - t), split.n_undecided, split.special[:, 2]]
    numbers += [thresholds.relative, band.band_traces, band.consistent]
    numbers += [bins.start, bins.knee, bins.end, bins.linear_bins, size - n_up_to_edge, mp_undecided]
    return xp.concatenate([columns(*numbers), bins.counts(below[:, 3:], size)], 1)


def read_functionals(columns: Array, size: int) -> list[Functionals]:
    """One record a matrix from its numbers (m, 28 + bins), in the order of :func:`slice_bands`; the one wait."""
    records = []
    for row in columns.tolist():
        finite = all(map(math.isfinite, row))  # NaN is never a score
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


def _first_grid(band: Band, schedule: Schedule) -> Array:
    """Points over the bulk, up to above the largest value (``s_max^2 <= ||G||_F``), and down to the rounding floor.

    Small values weigh most in a bound.
    """
    xp = functions_of(band.norms)
    bulk, top = 3 * xp.sqrt(band.traces / band.size), 1.001 * xp.sqrt(band.norms)
    bulk = xp.minimum(bulk, top)
    cells = schedule.linear_points(len(bulk)) - 1
    linear = bulk[:, None] * (steps(cells, bulk) / cells)
    first = linear[:, 0]
    low = _by_ratio(xp.minimum(band.rounding.floor[:, 0], first).clip(sys.float_info.min), first, LOW_POINTS)
    geometric = _by_ratio(bulk, top, GEOMETRIC_POINTS)
    return xp.concatenate([0.0 * linear[:, :1], linear, geometric, low], 1)


def _by_ratio(a: Array, b: Array, count: int) -> Array:
    """``count`` points from beyond a (m,) up to b (m,), each larger than the one before by the same ratio."""
    points = a[:, None] * (b / a)[:, None] ** (steps(count, a) / count)
    points[:, -1] = b
    return points


def _sums(band: Band, split: Split, tolerance: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Sums of the values below and above the threshold, each (m,) with its error bound.

    Both follow from what values exceed the start of either by. Those too small to be told from rounding (and computed
    eigenvalues below zero) lie under the starts.

    Args:
        band: the bands.
        split: at their thresholds.
        tolerance: relative accuracy wanted of a score.
    """
    table, count, special = split.table, split.n_noise, split.special
    xp, t, noise_start, signal_start, top = functions_of(count), *(special[:, place] for place in (1, 3, 4, 5))
    noise_end, signal_end = xp.maximum(t, noise_start), xp.maximum(top, signal_start)
    starts, ends = columns(noise_start, signal_start), columns(noise_end, signal_end)
    inside, n_below = table.inside(starts, ends), table.below(starts)
    n_above = columns(n_below[:, 0], table.size - count)
    least = xp.maximum(table.least_sums(inside), n_above * starts)
    of_noise = xp.where(count > 0, 0.5 * xp.maximum(least[:, 0], 1e-3 * t), math.inf)
    wanted = SHARE * tolerance * columns(of_noise, xp.minimum(of_noise, least[:, 1]))
    lines = Lines.of(table, band.band_traces, starts, wanted)
    over, errors = excess(band.slices, lines), lines.error
    rounded = table.rounding_errors(inside, band.rounding) + split.moved[:, None]
    risen = n_below[:, 0] * band.rounding.rise(special[:, 3:4])[:, 0]
    error = errors[:, 0] + errors[:, 1] + rounded[:, 0] + risen
    between = table.size * (noise_end - noise_start) - over[:, 0] + over[:, 1]
    noise = _sum_below(count, t, noise_start, n_below[:, 0], between, error)
    error = errors[:, 1] + rounded[:, 1]
    signal = _sum_above(count, table.size, t, top, signal_start, n_below[:, 1], over[:, 1], error)
    return noise, signal


def _sum_below(
    count: Array, t: Array, start: Array, n_below: Array, integral: Array, error: Array
) -> tuple[Array, Array]:
    """Sum of the ``count`` values below t, and its error bound.

    Those under the start of the integral are counted, valued at the middle between it and zero, and their doubt goes
    into the bound.
    """
    xp, half = functions_of(t), 0.5 * n_below * start
    hidden, middle = start >= t, 0.5 * count * t  # everything below t is below the rounding floor
    total, error = xp.where(hidden, middle, count * t - half - integral), xp.where(hidden, middle, error + half)
    return xp.where(count == 0, 0.0, total), xp.where(count == 0, 0.0, error)


def _sum_above(
    count: Array, size: int, t: Array, top: Array, start: Array, n_below: Array, over: Array, error: Array
) -> tuple[Array, Array]:
    """Sum of the values at or above t, of which ``count`` lie below, and its error bound; none lies above ``top``.

    ``over`` is what values exceed the start by.
    """
    xp, inside = functions_of(t), size - count
    hidden_below = 0.5 * (n_below - count)  # where the threshold itself lies under the rounding floor
    total = over + (size - n_below) * start + hidden_below * (t + start)
    error = error + hidden_below * (start - t)
    hidden, half = start >= top, 0.5 * inside
    total, error = xp.where(hidden, half * (t + top), total), xp.where(hidden, half * (top - t), error)
    empty = (inside == 0) | (top <= t)
    return xp.where(empty, 0.0, total), xp.where(empty, 0.0, error)
