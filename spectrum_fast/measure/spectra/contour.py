"""Integrals of the counting function of each matrix of a batch, by contour.

Sums of singular values come from the identity ``sum_{s_i <= t} s_i = N(t) t - integral_0^t N(s) ds``. N is a staircase,
but it is the boundary value of an analytic function: with ``L(z) = sum_i log(s_i^2 - z)``, the log-determinant,
``N(s) = -Im L(s^2 + i0) / pi``. So its integral may be taken along a half circle in the upper half plane, away from
every eigenvalue. The map ``w = (a + i b e^u) / (1 + i e^u)`` of the real line onto that half circle puts all
singularities on the lines ``Im = 0`` and ``Im = pi``: the trapezoidal rule converges like ``exp(-pi^2 / step)``
whatever the spectrum (clusters, gaps, values at the end points), so some thirty complex shifts replace one shift per
eigenvalue.

Every interval has an accuracy of its own. All are given as many places of nodes as the finest could need, and those
that one does not need are passed over; one launch serves all intervals of a batch.

Source: Trefethen & Weideman 2014 (trapezoidal rule).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spectrum_fast.measure.spectra.arrays import Array, columns, complex_of, functions_of, pick, steps
from spectrum_fast.measure.spectra.counts import CountTable, Slices

FINEST, COARSEST = 1e-13, 1e-4
"""Relative accuracy of an integral: between these."""
SHARE = 0.1
"""Of the tolerance of a score, what the integrals of one of its sums may be wrong by. Nodes grow with the square of the
accuracy's logarithm: a thirtieth of it costs half as many again."""
_REACH = 0.75
"""Nodes extend to ``exp(-reach)`` = accuracy^0.75 of the interval at each end; the closed-form tail does the rest."""
_LARGEST_CROWDING = 1e6
"""Ratio of the ends of an interval up to which the lower end is resolved on its own scale."""
_INSIDE_ERROR = 16.0
_OUTSIDE_ERROR = 4.0
_OUTSIDE_ERROR_NARROW = 40.0
"""Error of an integral in units of ``accuracy * (b - a)`` per value inside and outside the interval, the last for
``b < 2 a``; worst seen 11, 2 and 26 (tests/measure/spectra/test_contour.py holds it to the bound)."""
_LARGEST_LOG = math.log(1 / FINEST)
_ABREAST = 16
"""Places are a multiple of this, the most that a vector loop of torch takes at a time: what a loop is left with it
rounds otherwise, and no matrix may come out otherwise beside others."""
_LOWER = math.ceil((_REACH * _LARGEST_LOG + math.log(_LARGEST_CROWDING)) * _LARGEST_LOG / math.pi**2)
_UPPER = math.ceil(_REACH * _LARGEST_LOG**2 / math.pi**2)
_UPPER += -(_LOWER + _UPPER + 1) % _ABREAST
"""Places of nodes on either side of the middle, enough for the finest accuracy and the lowest lower end."""


@dataclass(frozen=True)
class Intervals:
    """Intervals [a, b] of singular values of each matrix, and what is known of the spectrum around them; all (m, i).

    Attributes:
        a: lower ends, at least 0. Negative computed eigenvalues (rounding) must be smaller than ``a^2 / 16``.
        b: upper ends; an interval with ``b <= a`` is empty.
        n_below: ``N(a)``.
        n_inside: ``N(b) - N(a)``.
        n_above: values above ``b``.
        below_rms: typical value below ``a`` (any guess in [0, a]; a better one integrates more exactly).
        above_rms: typical value above ``b`` (any guess of at least ``b``).
        accuracy: relative accuracy of the integral.
    """

    a: Array
    b: Array
    n_below: Array
    n_inside: Array
    n_above: Array
    below_rms: Array
    above_rms: Array
    accuracy: Array

    @classmethod
    def of(cls, table: CountTable, a: Array, b: Array, total: Array, tolerance: float) -> Intervals:
        """The intervals between points of the table.

        Args:
            table: counts.
            a: lower ends.
            b: upper ends.
            total: a lower bound on the sum that each integral serves, shared out among those that serve one.
            tolerance: relative accuracy wanted of a score.
        """
        xp, count = functions_of(a), a.shape[1]
        n_ends = table.below(xp.concatenate([a, b], 1))
        n_a, n_b = n_ends[:, :count], n_ends[:, count:]
        below, above = table.typical_beside(a, b)
        plain = cls(a, b, n_a, n_b - n_a, table.size - n_b, below, above, xp.ones_like(a))
        wanted = SHARE * tolerance * total / plain.error()
        wanted = xp.where(wanted < COARSEST, wanted, COARSEST)  # 0 / 0 for an empty interval, which needs nothing
        return replace(plain, accuracy=wanted.clip(FINEST))

    def error(self) -> Array:
        """Bound on the error of each integral."""
        outside = functions_of(self.a).where(self.b > 2 * self.a, _OUTSIDE_ERROR, _OUTSIDE_ERROR_NARROW)
        weighted = _INSIDE_ERROR * (self.n_inside + 1) + outside * (self.n_below + self.n_above)
        return self.accuracy * weighted * (self.b - self.a).clip(0.0)


@dataclass(frozen=True)
class _Nodes:
    """Nodes w of the trapezoidal rule on half circles, at equal distances in u; (m, i, places) or (m, i, 1).

    Attributes:
        step: distance of two of them.
        first: place of the lowest that an interval needs.
        last: place of the highest.
        wanted: which nodes count, of an empty interval none.
        squared: real and imaginary part, at least 0, of their squares.
        slope: likewise of the map there, ``dw / du``.
    """

    step: Array
    first: Array
    last: Array
    wanted: Array
    squared: tuple[Array, Array]
    slope: tuple[Array, Array]

    @classmethod
    def of(cls, intervals: Intervals) -> _Nodes:
        """Values crowd at the lower end of an interval on the scale a / b."""
        xp = functions_of(intervals.a)
        inverse = -xp.log(intervals.accuracy)[..., None]
        step = math.pi**2 / inverse
        a = intervals.a[..., None]
        full = (intervals.b > intervals.a)[..., None]
        # An empty interval gets any other one: a contour shrunk to a point would run through the spectrum.
        b = xp.where(full, intervals.b[..., None], 2 * a + 1)
        crowding = xp.log(xp.where(b < _LARGEST_CROWDING * a, b / a, _LARGEST_CROWDING).clip(1.0))
        below, above = xp.ceil((_REACH * inverse + crowding) / step), xp.ceil(_REACH * inverse / step)
        place = steps(_LOWER + 1 + _UPPER, a) - (_LOWER + 1)
        wanted = full & (place >= -below) & (place <= above)
        # With z = i e^u, w = (a + b z) / (1 + z) and dw / du = (b - a) z / (1 + z)^2, in real numbers.
        e = xp.exp(xp.minimum(xp.maximum(place, -below), above) * step)
        squared_e = e * e
        norm = 1 + squared_e
        real, imag = (a + b * squared_e) / norm, (b - a) * e / norm
        squared = (real - imag) * (real + imag), 2 * real * imag
        slope = 2 * imag * e / norm, imag * (1 - squared_e) / norm
        first, last = (xp.asarray(_LOWER + end, dtype=xp.int64) for end in (-below, above))
        return cls(step, first, last, wanted, squared, slope)


def integrate(slices: Slices, intervals: Intervals) -> Array:
    """``integral_a^b N(s) ds`` of each interval (m, i), all in one evaluation; 0 where ``b <= a``."""
    xp, a, b, half = functions_of(intervals.a), intervals.a, intervals.b, 0.5 * intervals.n_inside
    nodes = _Nodes.of(intervals)
    shape, wanted, (real, imag) = nodes.wanted.shape, nodes.wanted, nodes.squared
    shifts = complex_of(real, imag).reshape(shape[0], -1)
    values = slices.log_det(shifts, wanted.reshape(shape[0], -1)).reshape(shape)
    # A reference spectrum with the same counts has a known integral and the same behaviour at infinity (a pole of the
    # map): only the small difference is left to the quadrature. Its inside values sit at the two ends, half each.
    points = columns(intervals.below_rms, intervals.above_rms, a, b)[..., None]
    counts = columns(intervals.n_below, intervals.n_above, half, half)[..., None]
    apart = points * points - real[..., None, :]
    imag = imag[..., None, :]
    logarithms = 0.5 * xp.log(apart * apart + imag * imag), xp.arctan2(-imag, apart)
    # A log of zero where nothing is counted must not make a NaN.
    reference = [xp.where(counts == 0, 0.0, counts * one).sum(-2) for one in logarithms]
    terms = (values.real - reference[0]) * nodes.slope[1] + (values.imag - reference[1]) * nodes.slope[0]
    terms = xp.where(wanted, terms, 0.0)
    integral = nodes.step[..., 0] * (terms.sum(-1) + _tails(terms, nodes))
    return xp.where(b > a, (intervals.n_below + half) * (b - a) - integral / math.pi, 0.0)


def _tails(terms: Array, nodes: _Nodes) -> Array:
    """Nodes left out beyond the first and the last, where terms run like ``e^(-u) (alpha + beta u)``; (m, i)."""
    xp = functions_of(terms)
    ends = pick(terms, xp.concatenate([nodes.first, nodes.last, nodes.first + 1, nodes.last - 1], -1))
    outer, inner, q = ends[..., :2], ends[..., 2:], xp.exp(-nodes.step)
    return ((outer * q / (1 - q)) + (outer - inner * q) * q / (1 - q) ** 2).sum(-1)
