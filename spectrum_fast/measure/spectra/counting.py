"""Order statistics and partial sums of singular values, read off by counting.

Everything rests on two functions of a real shift or a complex one:

- ``N(t)``, the number of singular values below ``t`` (Sturm counts at ``t^2``), and
- ``L(z) = sum_i log(s_i^2 - z)``, the log-determinant.

*Order statistics* come from multisection: each bracket is split at a few interior points a round, all brackets of a
matrix together, until it is as narrow as asked.

*Sums* come from the identity ``sum_{s_i <= t} s_i = N(t) t - integral_0^t N(s) ds``. N is a staircase, but it is the
boundary value of an analytic function, ``N(s) = -Im L(s^2 + i0) / pi``, so its integral may be taken along a half
circle in the upper half plane, away from every eigenvalue. The map ``w = (a + i b e^u) / (1 + i e^u)`` of the real
line onto that half circle puts all singularities on the lines ``Im = 0`` and ``Im = pi``: the trapezoidal
rule converges like ``exp(-pi^2 / step)`` whatever the spectrum (clusters, gaps, values at the end points), so some
thirty complex shifts replace one shift per eigenvalue.

Source: Parlett, The Symmetric Eigenvalue Problem, ch. 3 (slicing); Trefethen & Weideman 2014 (trapezoidal rule).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CountFunction = Callable[[FloatArray], npt.NDArray[np.int64]]
LogDetFunction = Callable[[npt.NDArray[np.complex128]], npt.NDArray[np.complex128]]

_POINTS_PER_BRACKET = 3
"""Interior points a bracket and round. On a CPU, two to three give the most bits per shift; lanes stay full because
all brackets of a matrix share one call."""
_MAX_ROUNDS = 200
REACH = 0.75
"""Nodes extend to ``exp(-reach)`` = tolerance^0.75 of the interval at each end; the closed-form tail does the rest."""
LARGEST_CROWDING = 1e6
"""Ratio of the ends of an interval up to which the lower end is resolved on its own scale."""
INSIDE_ERROR = 16.0
OUTSIDE_ERROR = 4.0
OUTSIDE_ERROR_NARROW = 40.0
"""Error of :func:`integrate_counts` in units of ``tolerance * (b - a)`` per value inside and outside the interval, the
last for ``b < 2 a``; worst seen 11, 2 and 26 (tests/measure/spectra/test_counting.py holds it to the bound)."""


@dataclass(frozen=True)
class Interval:
    """An interval of singular values and what is known of the spectrum around it.

    Attributes:
        a: lower end, at least 0. Negative computed eigenvalues (rounding) must be smaller than ``a^2 / 16``.
        b: upper end.
        n_below: ``N(a)``.
        n_inside: ``N(b) - N(a)``.
        n_above: values above ``b``.
        below_rms: typical value below ``a`` (any guess in [0, a]; a better one integrates more exactly).
        above_rms: typical value above ``b`` (any guess of at least ``b``).
    """

    a: float
    b: float
    n_below: int
    n_inside: int
    n_above: int
    below_rms: float
    above_rms: float


@dataclass
class CountTable:
    """``N(t)`` at every ``t`` asked so far: brackets of order statistics and a histogram, for nothing extra.

    Attributes:
        count: evaluates ``N`` at an array of points ``t >= 0``.
        size: number of singular values.
        points: ascending points, starting with 0.
        counts: ``N`` at those points, made non-decreasing.
    """

    count: CountFunction
    size: int
    points: FloatArray = field(default_factory=lambda: np.zeros(0))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, points: FloatArray) -> None:
        """Evaluate ``N`` at new points and keep the result, sorted."""
        fresh = np.setdiff1d(points, self.points)
        if fresh.size == 0:
            return
        all_points = np.concatenate([self.points, fresh])
        all_counts = np.concatenate([self.counts, self.count(fresh)])
        order = np.argsort(all_points, kind="stable")
        self.points = all_points[order]
        # Rounding can make two counts one apart come in the wrong order; N itself never decreases.
        self.counts = np.maximum.accumulate(all_counts[order])

    def below(self, t: float) -> int:
        """``N(t)``, evaluated if it is not in the table."""
        self.add(np.array([t]))
        return int(self.counts[np.searchsorted(self.points, t)])

    def interval(self, a: float, b: float) -> Interval:
        """The interval [a, b] with its counts, and typical values outside it from the histogram at hand."""
        n_a, n_b = self.below(a), self.below(b)
        centres = 0.5 * (self.points[1:] + self.points[:-1])
        weights = np.diff(self.counts).astype(np.float64)

        def rms(inside: npt.NDArray[np.bool_], default: float) -> float:
            total = weights[inside].sum()
            return float(np.sqrt((weights[inside] * centres[inside] ** 2).sum() / total)) if total > 0 else default

        return Interval(a, b, n_a, n_b - n_a, self.size - n_b, rms(centres < a, a), rms(centres > b, b))

    def bracket(self, rank: int) -> tuple[float, float]:
        """Points lo, hi of the table with ``N(lo) <= rank < N(hi)``: the rank-th value (from 0) lies in [lo, hi)."""
        position = int(np.searchsorted(self.counts, rank, side="right"))
        lo = self.points[position - 1] if position > 0 else 0.0
        hi = self.points[position] if position < self.points.size else np.inf
        return float(lo), float(hi)


def bracket_order_statistics(
    table: CountTable, ranks: list[int], width: Callable[[float], float]
) -> dict[int, tuple[float, float]]:
    """Narrow the brackets of the given order statistics by multisection.

    Args:
        table: counts so far; its last point must lie above every value asked for. New counts are added to it.
        ranks: ascending ranks from 0 (smallest) to ``size - 1`` (largest).
        width: the bracket width that is narrow enough near a value ``t``.

    Returns:
        For each rank, the bracket ``(lo, hi)`` with ``N(lo) <= rank < N(hi)``.
    """
    fractions = np.arange(1, _POINTS_PER_BRACKET + 1) / (_POINTS_PER_BRACKET + 1)
    for _ in range(_MAX_ROUNDS):
        brackets = {rank: table.bracket(rank) for rank in ranks}
        open_brackets = {
            (lo, hi) for lo, hi in brackets.values() if hi - lo > width(hi) and np.nextafter(lo, np.inf) < hi
        }
        if not open_brackets:
            return brackets
        table.add(np.concatenate([lo + (hi - lo) * fractions for lo, hi in sorted(open_brackets)]))
    return {rank: table.bracket(rank) for rank in ranks}


def integrate_counts(log_det: LogDetFunction, interval: Interval, tolerance: float) -> float:
    """``integral_a^b N(s) ds``, with an error of at most :func:`integration_error`.

    Args:
        log_det: ``L(z) = sum_i log(s_i^2 - z)`` for ``Im z > 0``, arguments of the logarithms in (-pi, 0).
        interval: where to integrate.
        tolerance: relative accuracy, in (0, 0.1).

    Returns:
        The integral. Uses about ``1.5 (ln 1/tolerance)^2 / pi^2`` evaluations of ``log_det``.
    """
    a, b = interval.a, interval.b
    if not b > a:
        return 0.0
    log_inverse = float(np.log(1.0 / tolerance))
    step = np.pi**2 / log_inverse
    # Beyond the last node the integrand decays geometrically; that tail is added in closed form, which leaves an error
    # of second order in exp(-reach). Values crowd near the lower end on the scale a/b, so that end reaches further.
    upper = int(np.ceil(REACH * log_inverse / step))
    crowding = np.log(min(b / a, LARGEST_CROWDING)) if a > 0 else 0.0
    lower = int(np.ceil((REACH * log_inverse + crowding) / step))
    u = np.arange(-lower, upper + 1) * step
    z = np.exp(u) * 1j
    w = (a + b * z) / (1 + z)
    slope = (b - a) * z / (1 + z) ** 2
    # A reference spectrum with the same counts has a known integral and the same behaviour at infinity (a pole of the
    # map): only the small difference is left to the quadrature. Its inside values sit at the two ends, half each.
    squared = w * w
    half = 0.5 * interval.n_inside
    reference = (
        interval.n_below * np.log(interval.below_rms**2 - squared)
        + half * (np.log(a * a - squared) + np.log(b * b - squared))
        + interval.n_above * np.log(interval.above_rms**2 - squared)
    )
    values = ((log_det(squared) - reference) * slope).imag
    integral = step * (values.sum() + _sum_tail(values[::-1], step) + _sum_tail(values, step))
    return float((interval.n_below + half) * (b - a) - integral / np.pi)


def integration_error(interval: Interval, tolerance: float) -> float:
    """Bound on the error of :func:`integrate_counts`, in units of the integral."""
    outside = OUTSIDE_ERROR if interval.b > 2 * interval.a else OUTSIDE_ERROR_NARROW
    weighted = INSIDE_ERROR * (interval.n_inside + 1) + outside * (interval.n_below + interval.n_above)
    return tolerance * weighted * max(interval.b - interval.a, 0.0)


def _sum_tail(values: FloatArray, step: float) -> float:
    """Sum of the nodes left out after the last of ``values``, which run like ``e^(-u) (alpha + beta u)`` out there."""
    q = np.exp(-step)
    last = values[-1]
    increment = last - values[-2] * q
    return float(last * q / (1 - q) + increment * q / (1 - q) ** 2)
