"""Integrals of the counting function of each matrix of a batch, by contour.

The method, the map and the error model are those of :mod:`spectrum_fast.measure.spectra.counting`. Every interval has
an accuracy of its own, known on the device only: all are given as many nodes as the finest could need, those that one
does not need are passed over, and one launch serves all intervals of all matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.batched.operations import Slices
from spectrum_fast.measure.spectra.batched.table import BatchTable
from spectrum_fast.measure.spectra.counting import (
    INSIDE_ERROR,
    LARGEST_CROWDING,
    OUTSIDE_ERROR,
    OUTSIDE_ERROR_NARROW,
    REACH,
)

FINEST, COARSEST = 1e-11, 1e-4
"""Relative accuracy of an integral: between these."""
_SHARE = 0.003
"""Of the tolerance of a score, what the integral of one of its sums may be wrong by. Nodes grow with the square of the
accuracy's logarithm: a tenth of it costs a quarter more of them."""


@dataclass(frozen=True)
class BatchInterval:
    """One interval [a, b] a matrix with its counts; see ``spectra.counting.Interval``. All (m,).

    Attributes:
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
    def of(cls, table: BatchTable, a: Tensor, b: Tensor, total: Tensor, tolerance: float) -> BatchInterval:
        """The interval between two points of the table.

        Args:
            table: counts.
            a: lower ends.
            b: upper ends.
            total: a lower bound on the sum that the integral serves.
            tolerance: relative accuracy wanted of a score.
        """
        n_a, n_b = table.at(a), table.at(b)
        below, above = table.typical_below(a), table.typical_above(b)
        plain = cls(a, b, n_a, n_b - n_a, table.size - n_b, below, above, torch.ones_like(a))
        # 0 / 0 for an empty interval, which needs nothing.
        wanted = (_SHARE * tolerance * total / plain.error()).nan_to_num(COARSEST)
        return replace(plain, accuracy=wanted.clamp(FINEST, COARSEST))

    def error(self) -> Tensor:
        """Bound on the error of the integral, (m,)."""
        outside = torch.where(self.b > 2 * self.a, OUTSIDE_ERROR, OUTSIDE_ERROR_NARROW)
        weighted = INSIDE_ERROR * (self.n_inside + 1) + outside * (self.n_below + self.n_above)
        return self.accuracy * weighted * (self.b - self.a).clamp(min=0)


def integrate(slices: Slices, intervals: Sequence[BatchInterval]) -> list[Tensor]:
    """``integral_a^b N(s) ds`` of each interval (m,), all in one evaluation; 0 where ``b <= a``."""
    contours = [_Contour.of(interval) for interval in intervals]
    wanted = [contour.wanted for contour in contours]
    squares = torch.cat([contour.squared for contour in contours], dim=1)
    values = slices.log_det(squares, torch.cat(wanted, dim=1)).split(_PLACES, dim=1)
    parts = zip(intervals, contours, values, strict=True)
    return [_integral(interval, contour, value) for interval, contour, value in parts]


_LARGEST_LOG = math.log(1 / FINEST)
_UPPER = math.ceil(REACH * _LARGEST_LOG**2 / math.pi**2)
_LOWER = math.ceil((REACH * _LARGEST_LOG + math.log(LARGEST_CROWDING)) * _LARGEST_LOG / math.pi**2)
_PLACES = _LOWER + 1 + _UPPER
"""Places of nodes of an interval, enough for the finest accuracy and the lowest lower end."""


@dataclass(frozen=True)
class _Contour:
    """Half circles over the intervals of a batch.

    Attributes:
        step: (m, 1) distance of the nodes u of the trapezoidal rule.
        first: (m, 1) place of the lowest node that an interval needs: values crowd at its lower end on the scale a / b.
        last: (m, 1) place of the highest.
        wanted: (m, places) which nodes count; of an empty interval none.
        squared: (m, places) their points, squared.
        slope: (m, places) of the map.
    """

    step: Tensor
    first: Tensor
    last: Tensor
    wanted: Tensor
    squared: Tensor
    slope: Tensor

    @classmethod
    def of(cls, interval: BatchInterval) -> _Contour:
        inverse = -torch.log(interval.accuracy)[:, None]
        step = math.pi**2 / inverse
        a = interval.a[:, None]
        full = (interval.b > interval.a)[:, None]
        # An empty interval gets any other one: a contour shrunk to a point would run through the spectrum.
        b = torch.where(full, interval.b[:, None], 2 * a + 1)
        crowding = torch.log((b / a).clamp(1.0, LARGEST_CROWDING).nan_to_num(LARGEST_CROWDING))
        first = _LOWER - torch.ceil((REACH * inverse + crowding) / step).to(torch.int64)
        last = _LOWER + torch.ceil(REACH * inverse / step).to(torch.int64)
        place = torch.arange(_PLACES, device=a.device)
        wanted = full & (place >= first) & (place <= last)
        u = ((place - _LOWER).clamp(first - _LOWER, last - _LOWER)) * step
        z = torch.complex(torch.zeros_like(u), torch.exp(u))
        w = (a + b * z) / (1 + z)
        squared = w * w
        # Im w >= 0 and Re w >= 0 in exact arithmetic.
        squared = torch.complex(squared.real, squared.imag.clamp(min=0))
        return cls(step, first, last, wanted, squared, (b - a) * z / (1 + z) ** 2)


def _integral(interval: BatchInterval, contour: _Contour, log_det: Tensor) -> Tensor:
    half = 0.5 * interval.n_inside[:, None]

    def log_of(t: Tensor, count: Tensor) -> Tensor:
        # A log of zero where nothing is counted must not make a NaN.
        return torch.where(count == 0, 0.0, count * torch.log((t * t)[:, None] - contour.squared))

    reference = (
        log_of(interval.below_rms, interval.n_below[:, None])
        + log_of(interval.a, half)
        + log_of(interval.b, half)
        + log_of(interval.above_rms, interval.n_above[:, None])
    )
    values = torch.where(contour.wanted, ((log_det - reference) * contour.slope).imag, 0.0)
    tails = _tail(values, contour.last, -1, contour.step) + _tail(values, contour.first, 1, contour.step)
    integral = contour.step[:, 0] * (values.sum(1) + tails)
    width = interval.b - interval.a
    return torch.where(width > 0, (interval.n_below + 0.5 * interval.n_inside) * width - integral / math.pi, 0.0)


def _tail(values: Tensor, place: Tensor, inwards: int, step: Tensor) -> Tensor:
    """Nodes left out beyond the one at ``place``, where values run like ``e^(-u) (alpha + beta u)``; (m,)."""
    last, before, q = values.gather(1, place), values.gather(1, place + inwards), torch.exp(-step)
    return (last * q / (1 - q) + (last - before * q) * q / (1 - q) ** 2)[:, 0]
