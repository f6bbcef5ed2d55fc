"""From a sliced band matrix to the functionals of a score, each with the error that rounding and shifts imply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from spectrum_fast.measure.spectra.binning import empty_histogram, fill_histogram
from spectrum_fast.measure.spectra.counting import (
    CountTable,
    FloatArray,
    Interval,
    LogDetFunction,
    bracket_order_statistics,
    integrate_counts,
    integration_error,
)
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics
from spectrum_fast.measure.spectra.rounding import Rounding

_FEW = 16
"""Sums over no more values than this are bounded by the error of each one, not by the mean error."""


@dataclass(frozen=True)
class Functionals:
    """Order statistics, threshold, counts and sums of one spectrum, with absolute error bounds where they matter."""

    statistics: OrderStatistics
    threshold: float
    n_signal: int
    n_noise: int
    signal_sum: float
    noise_sum: float
    signal_error: float
    noise_error: float
    s_max_error: float
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
    consistent: bool = True
    """Trace and norm came through the method unchanged; if not, a kernel is at fault and nothing here is trusted."""

    @classmethod
    def none(cls) -> Functionals:
        """Of a matrix that the method lost to infinities."""
        nothing = OrderStatistics(0.0, 0.0, 0.0, 0.0, 0.0)
        empty = Histogram(0.0, 0.0, 0.0, 1, (0,))
        return cls(nothing, 0.0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0, empty, consistent=False)

    def score_error(self) -> float:
        """Bound on the relative error of ``signal_sum / noise_sum / s_max``; infinite where nothing can be said.

        A sum that is for certain empty is left out: of a noise-free matrix, or of one with a score of zero, the bound
        is that of what remains. With relative errors ``x_i`` of the parts it is ``prod_i 1 / (1 - x_i) - 1``, which
        covers the computed score against the true one and the true one against the computed.
        """
        if not self.consistent:
            return math.inf
        certain = self.n_undecided == 0
        undecided = self.n_undecided * self.largest_undecided
        parts = [(self.s_max_error, self.statistics.s_max), (self.threshold_error, 1.0)]
        if not (certain and self.noise_sum == 0.0):
            parts.append((self.noise_error + undecided, self.noise_sum))
        if not (certain and self.n_signal == 0):
            parts.append((self.signal_error + undecided, self.signal_sum))
        if any(error >= value for error, value in parts):
            return math.inf
        return math.expm1(-sum(math.log1p(-error / value) for error, value in parts))


@dataclass(frozen=True)
class ThresholdDoubt:
    """Where the threshold may be, given that the quartiles are not exactly known.

    Attributes:
        lowest: at least this.
        highest: at most this.
        relative: half the width in units of the threshold, or 0 if the score does not depend on it.
    """

    lowest: float
    highest: float
    relative: float


def doubt_threshold(
    criterion: Criterion, statistics: OrderStatistics, errors: tuple[float, float, float], n_min: int, n_max: int
) -> ThresholdDoubt:
    """The threshold at all corners of what the quartiles may be.

    Args:
        criterion: the rule.
        statistics: as computed.
        errors: absolute, of q25, q50 and q75.
        n_min: short side of the matrix.
        n_max: long side.
    """
    corners = [
        criterion.threshold(
            OrderStatistics(
                statistics.s_min,
                statistics.q25 + signs[0] * errors[0],
                statistics.q50 + signs[1] * errors[1],
                statistics.q75 + signs[2] * errors[2],
                statistics.s_max,
            ),
            n_min,
            n_max,
        )
        for signs in product((-1, 1), repeat=3)
    ]
    lowest, highest = min(corners), max(corners)
    middle = 0.5 * (lowest + highest)
    relative = criterion.threshold_power * 0.5 * (highest - lowest) / middle if middle > 0 else 0.0
    return ThresholdDoubt(lowest, highest, relative)


def interpolation_ranks(size: int, fraction: float) -> tuple[int, int, float]:
    """Ranks (from 0) and weight of a linear-interpolated quantile: ``(1 - w) s_lo + w s_hi``."""
    position = fraction * (size - 1)
    lo = int(np.floor(position))
    return lo, min(lo + 1, size - 1), position - lo


def slice_functionals(
    table: CountTable,
    log_det: LogDetFunction,
    criterion: Criterion,
    n_max: int,
    rounding: Rounding,
    tolerance: float,
    sum_of_squares: float,
) -> Functionals:
    """Compute the functionals of one matrix from counts and log-determinants alone.

    Args:
        table: Sturm counts in terms of singular values, with a point above all of them.
        log_det: ``L(z) = sum_i log(s_i^2 - z)`` of the same matrix.
        criterion: the rule that gives the threshold.
        n_max: the long side of the matrix (the table's size is the short side).
        rounding: how far the computed spectrum may be from the true one.
        tolerance: relative accuracy wanted of the score; the quadrature spends a tenth of it.
        sum_of_squares: trace of the band matrix.
    """
    size = table.size
    uncertainty = rounding.uncertainty
    quantiles = {fraction: interpolation_ranks(size, fraction) for fraction in (0.25, 0.5, 0.75)}
    ranks = sorted({0, size - 1, *(rank for lo, hi, _ in quantiles.values() for rank in (lo, hi))})

    def narrow_enough(t: float) -> float:
        return max(0.02 * uncertainty(t), 4 * np.finfo(float).eps * t)

    brackets = bracket_order_statistics(table, ranks, narrow_enough)
    value = {rank: 0.5 * (lo + hi) for rank, (lo, hi) in brackets.items()}
    error = {rank: 0.5 * (hi - lo) + uncertainty(hi) for rank, (lo, hi) in brackets.items()}

    def interpolate(of: dict[int, float], fraction: float) -> float:
        lo, hi, weight = quantiles[fraction]
        return (1 - weight) * of[lo] + weight * of[hi]

    statistics = OrderStatistics(
        value[0], interpolate(value, 0.25), interpolate(value, 0.5), interpolate(value, 0.75), value[size - 1]
    )
    threshold = criterion.threshold(statistics, size, n_max)
    errors = (interpolate(error, 0.25), interpolate(error, 0.5), interpolate(error, 0.75))
    doubt = doubt_threshold(criterion, statistics, errors, size, n_max)
    lowest = max(doubt.lowest - uncertainty(threshold), 0.0)
    highest = doubt.highest + uncertainty(threshold)
    bins = empty_histogram(statistics)
    inner = bins.edges[1:-1]
    table.add(np.concatenate([[lowest, threshold, highest], inner]))
    n_noise = table.below(threshold)
    # No true value lies below zero, though rounding makes negative ones: those of size zero are undecided too.
    n_undecided = table.below(highest) - (table.below(lowest) if lowest > 0 else 0)

    top = brackets[size - 1][1]
    noise_sum, noise_error = _sum_below(table, log_det, brackets[0][0], threshold, rounding, tolerance)
    signal_sum, signal_error = _sum_above(table, log_det, threshold, top, rounding, tolerance)
    return Functionals(
        statistics=statistics,
        threshold=threshold,
        n_signal=size - n_noise,
        n_noise=n_noise,
        signal_sum=signal_sum,
        noise_sum=noise_sum,
        signal_error=signal_error,
        noise_error=noise_error,
        s_max_error=error[size - 1] + rounding.largest_more(top),
        n_undecided=n_undecided,
        largest_undecided=highest,
        threshold_error=doubt.relative,
        sum_of_squares=sum_of_squares,
        histogram=fill_histogram(bins, table.counts[np.searchsorted(table.points, inner)], size),
    )


def _sum_below(
    table: CountTable, log_det: LogDetFunction, lowest: float, t: float, rounding: Rounding, tolerance: float
) -> tuple[float, float]:
    """Sum of the values below ``t``, and its error bound."""
    count = table.below(t)
    if count == 0:
        return 0.0, 0.0
    # Values too small to be told from rounding (and computed eigenvalues below zero) lie under `start`; they are
    # counted, valued at the middle of [0, start], and their doubt goes into the bound.
    start = max(rounding.floor(), lowest)
    if start >= t:
        return 0.5 * count * t, 0.5 * count * t
    interval = table.interval(start, t)
    below_start = interval.n_below
    share = max(_histogram_sum(table, start, t), below_start * start, 1e-3 * t)
    accuracy = _quadrature_accuracy(tolerance, share, interval)
    integral = integrate_counts(log_det, interval, accuracy)
    total = count * t - below_start * start - integral + 0.5 * below_start * start
    error = integration_error(interval, accuracy) + 0.5 * below_start * start
    return total, error + _rounding_error(table, start, t, rounding)


def _sum_above(
    table: CountTable, log_det: LogDetFunction, t: float, top: float, rounding: Rounding, tolerance: float
) -> tuple[float, float]:
    """Sum of the values at or above ``t``; ``top`` lies at or above all of them."""
    count = table.below(t)
    inside = table.size - count
    if inside == 0 or top <= t:
        return 0.0, 0.0
    start = max(t, rounding.floor())
    if start >= top:
        return 0.5 * inside * (t + top), 0.5 * inside * (top - t)
    below_start = table.below(start)
    # One far outlier must not set the scale of the bulk's integral: split where the outliers begin.
    splits = [start, *_outlier_splits(table, start, top), top]
    total, error = 0.0, 0.0
    share = max(_histogram_sum(table, start, top), inside * start) / (len(splits) - 1)
    for a, b in pairwise(splits):
        interval = table.interval(a, b)
        accuracy = _quadrature_accuracy(tolerance, share, interval)
        total -= integrate_counts(log_det, interval, accuracy)
        error += integration_error(interval, accuracy)
    total += table.size * top - below_start * start
    if below_start > count:  # the threshold itself lies under the rounding floor
        total += 0.5 * (below_start - count) * (t + start)
        error += 0.5 * (below_start - count) * (start - t)
    return total, error + _rounding_error(table, start, top, rounding)


def _quadrature_accuracy(tolerance: float, share: float, interval: Interval) -> float:
    """Quadrature tolerance that keeps the integration error under a tenth of the tolerance of the sum."""
    return float(np.clip(0.1 * tolerance * share / integration_error(interval, 1.0), 1e-13, 1e-4))


def _outlier_splits(table: CountTable, start: float, top: float) -> list[float]:
    """A point between bulk and outliers, where the largest value towers over all but a few."""
    few = table.size - 8
    if few <= 0:
        return []
    position = int(np.searchsorted(table.counts, few, side="left"))
    if position >= table.points.size:
        return []
    point = float(table.points[position])
    return [point] if start < point < 0.1 * top else []


def _cells(table: CountTable, a: float, b: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lower edges, upper edges and counts of the histogram cells between two points of the table."""
    inside = (table.points >= a) & (table.points <= b)
    points, counts = table.points[inside], table.counts[inside]
    return points[:-1], points[1:], np.diff(counts).astype(np.float64)


def _histogram_sum(table: CountTable, a: float, b: float) -> float:
    """Lower bound on the sum of the values in [a, b], from the counts at hand."""
    lower, _, counts = _cells(table, a, b)
    return float((lower * counts).sum())


def _rounding_error(table: CountTable, a: float, b: float, rounding: Rounding) -> float:
    """Sum over the values in [a, b] of their uncertainty, largest at the lower edge of each cell."""
    lower, _, counts = _cells(table, a, b)
    if counts.sum() <= _FEW:
        return float(
            sum(count * rounding.uncertainty(edge) for edge, count in zip(lower, counts, strict=True) if count)
        )
    return float(
        sum(count * rounding.mean_uncertainty(edge) for edge, count in zip(lower, counts, strict=True) if count)
    )
