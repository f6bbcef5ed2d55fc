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

import torch
from torch import Tensor

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

    a: Tensor
    b: Tensor
    n_below: Tensor
    n_inside: Tensor
    n_above: Tensor
    below_rms: Tensor
    above_rms: Tensor
    accuracy: Tensor

    @classmethod
    def of(cls, table: CountTable, a: Tensor, b: Tensor, total: Tensor, tolerance: float) -> Intervals:
        """The intervals between points of the table.

        Args:
            table: counts.
            a: lower ends.
            b: upper ends.
            total: a lower bound on the sum that each integral serves, shared out among those that serve one.
            tolerance: relative accuracy wanted of a score.
        """
        n_a, n_b = table.below(a), table.below(b)
        below, above = table.typical_beside(a, b)
        plain = cls(a, b, n_a, n_b - n_a, table.size - n_b, below, above, torch.ones_like(a))
        # 0 / 0 for an empty interval, which needs nothing.
        wanted = (SHARE * tolerance * total / plain.error()).nan_to_num(COARSEST)
        return replace(plain, accuracy=wanted.clamp(FINEST, COARSEST))

    def error(self) -> Tensor:
        """Bound on the error of each integral."""
        outside = torch.where(self.b > 2 * self.a, _OUTSIDE_ERROR, _OUTSIDE_ERROR_NARROW)
        weighted = _INSIDE_ERROR * (self.n_inside + 1) + outside * (self.n_below + self.n_above)
        return self.accuracy * weighted * (self.b - self.a).clamp(min=0)


def integrate(slices: Slices, intervals: Intervals) -> Tensor:
    """``integral_a^b N(s) ds`` of each interval (m, i), all in one evaluation; 0 where ``b <= a``."""
    step, first, last, wanted, squared, slope = _contours(intervals)
    values = slices.log_det(squared.flatten(1), wanted.flatten(1)).view_as(squared)
    half = 0.5 * intervals.n_inside

    def log_of(t: Tensor, count: Tensor) -> Tensor:
        # A log of zero where nothing is counted must not make a NaN.
        counts = count[..., None]
        return torch.where(counts == 0, 0.0, counts * torch.log((t * t)[..., None] - squared))

    # A reference spectrum with the same counts has a known integral and the same behaviour at infinity (a pole of the
    # map): only the small difference is left to the quadrature. Its inside values sit at the two ends, half each.
    reference = log_of(intervals.below_rms, intervals.n_below) + log_of(intervals.above_rms, intervals.n_above)
    reference = reference + log_of(intervals.a, half) + log_of(intervals.b, half)
    nodes = torch.where(wanted, ((values - reference) * slope).imag, 0.0)
    tails = _tail(nodes, last, -1, step) + _tail(nodes, first, 1, step)
    integral = step[..., 0] * (nodes.sum(-1) + tails)
    width = intervals.b - intervals.a
    return torch.where(width > 0, (intervals.n_below + half) * width - integral / math.pi, 0.0)


def _contours(intervals: Intervals) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Half circles over the intervals of a batch.

    Returns:
        Distance of the nodes u of the trapezoidal rule; places of the lowest and of the highest that an interval needs
        (values crowd at its lower end on the scale a / b); all (m, i, 1). Which nodes count, of an empty interval none;
        their points, squared; the slope of the map there; all (m, i, places).
    """
    inverse = -torch.log(intervals.accuracy)[..., None]
    step = math.pi**2 / inverse
    a = intervals.a[..., None]
    full = (intervals.b > intervals.a)[..., None]
    # An empty interval gets any other one: a contour shrunk to a point would run through the spectrum.
    b = torch.where(full, intervals.b[..., None], 2 * a + 1)
    crowding = torch.log((b / a).clamp(1.0, _LARGEST_CROWDING).nan_to_num(_LARGEST_CROWDING))
    below = torch.ceil((_REACH * inverse + crowding) / step).to(torch.int64)
    above = torch.ceil(_REACH * inverse / step).to(torch.int64)
    place = torch.arange(-_LOWER, _UPPER + 1, device=a.device)
    wanted = full & (place >= -below) & (place <= above)
    u = torch.minimum(torch.maximum(place, -below), above) * step
    z = torch.complex(torch.zeros_like(u), torch.exp(u))
    w = (a + b * z) / (1 + z)
    squared = w * w
    # Im w >= 0 and Re w >= 0 in exact arithmetic.
    squared = torch.complex(squared.real, squared.imag.clamp(min=0))
    return step, _LOWER - below, _LOWER + above, wanted, squared, (b - a) * z / (1 + z) ** 2


def _tail(values: Tensor, place: Tensor, inwards: int, step: Tensor) -> Tensor:
    """Nodes left out beyond the one at ``place``, where values run like ``e^(-u) (alpha + beta u)``; (m, i)."""
    last, before, q = values.gather(-1, place), values.gather(-1, place + inwards), torch.exp(-step)
    return (last * q / (1 - q) + (last - before * q) * q / (1 - q) ** 2)[..., 0]
