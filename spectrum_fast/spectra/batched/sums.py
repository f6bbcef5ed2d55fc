"""Integrals of the counting function of each matrix of a batch, by contour.

The method, the map and the error model are those of :mod:`spectrum_fast.spectra.counting`; here the accuracy is fixed
for a batch, so that all matrices share one set of nodes and one launch serves all their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.spectra.batched.operations import Slices
from spectrum_fast.spectra.batched.table import BatchTable
from spectrum_fast.spectra.counting import INSIDE_ERROR, LARGEST_CROWDING, OUTSIDE_ERROR, OUTSIDE_ERROR_NARROW, REACH

ACCURACY = 1e-11
"""Relative accuracy of every integral: a thousandth of a score's tolerance where one value in 10^4 is noise."""


@dataclass(frozen=True)
class BatchInterval:
    """One interval [a, b] a matrix with its counts; see :class:`spectrum_fast.spectra.counting.Interval`. All (m,)."""

    a: Tensor
    b: Tensor
    n_below: Tensor
    n_inside: Tensor
    n_above: Tensor
    below_rms: Tensor
    above_rms: Tensor

    @classmethod
    def of(cls, table: BatchTable, a: Tensor, b: Tensor) -> BatchInterval:
        """The interval between two points of the table."""
        n_a, n_b = table.at(a), table.at(b)
        below, above = table.typical_below(a), table.typical_above(b)
        return cls(a, b, n_a, n_b - n_a, table.size - n_b, below, above)

    def error(self) -> Tensor:
        """Bound on the error of the integral, (m,)."""
        outside = torch.where(self.b > 2 * self.a, OUTSIDE_ERROR, OUTSIDE_ERROR_NARROW)
        weighted = INSIDE_ERROR * (self.n_inside + 1) + outside * (self.n_below + self.n_above)
        return ACCURACY * weighted * (self.b - self.a).clamp(min=0)


def integrate(slices: Slices, intervals: Sequence[BatchInterval]) -> list[Tensor]:
    """``integral_a^b N(s) ds`` of each interval (m,), all in one evaluation; 0 where ``b <= a``."""
    nodes = _nodes(intervals[0].a.device)
    squares = [_contour(interval, nodes)[0] for interval in intervals]
    firsts = [_first_node(interval, nodes) for interval in intervals]
    wanted = [_is_wanted(interval, nodes, first) for interval, first in zip(intervals, firsts, strict=True)]
    values = slices.log_det(torch.cat(squares, dim=1), torch.cat(wanted, dim=1)).split(nodes.shape[0], dim=1)
    parts = zip(intervals, firsts, wanted, values, strict=True)
    return [_integral(interval, nodes, first, counts, value) for interval, first, counts, value in parts]


def _step() -> float:
    return math.pi**2 / math.log(1 / ACCURACY)


def _upper_nodes() -> int:
    return math.ceil(REACH * math.log(1 / ACCURACY) / _step())


def _nodes(device: torch.device) -> Tensor:
    """The nodes u of the trapezoidal rule; the lower end reaches further, for values crowd there on the scale a / b."""
    upper = _upper_nodes()
    lower = math.ceil((REACH * math.log(1 / ACCURACY) + math.log(LARGEST_CROWDING)) / _step())
    return torch.arange(-lower, upper + 1, dtype=torch.float64, device=device) * _step()


def _first_node(interval: BatchInterval, nodes: Tensor) -> Tensor:
    """Place of the lowest node that an interval needs, (m,): values crowd at its lower end by no more than b / a."""
    crowding = torch.log((interval.b / interval.a).clamp(1.0, LARGEST_CROWDING))
    needed = torch.ceil((REACH * math.log(1 / ACCURACY) + crowding) / _step())
    return (nodes.shape[0] - 1 - _upper_nodes() - needed.nan_to_num(0.0).to(torch.int64)).clamp(min=0)


def _is_wanted(interval: BatchInterval, nodes: Tensor, first: Tensor) -> Tensor:
    """Which nodes count, (m, nodes): of an empty interval none, else those from ``first`` (m,) on."""
    place = torch.arange(nodes.shape[0], device=nodes.device)
    return (place >= first[:, None]) & (interval.b > interval.a)[:, None]


def _contour(interval: BatchInterval, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Squared points of the half circle and the slope of the map, (m, nodes)."""
    a = interval.a[:, None]
    # An empty interval gets any other one: a contour shrunk to a point would run through the spectrum.
    b = torch.where(interval.b > interval.a, interval.b, 2 * interval.a + 1)[:, None]
    z = torch.complex(torch.zeros_like(nodes), torch.exp(nodes))[None]
    w = (a + b * z) / (1 + z)
    squared = w * w
    # Im w >= 0 and Re w >= 0 in exact arithmetic.
    return torch.complex(squared.real, squared.imag.clamp(min=0)), (b - a) * z / (1 + z) ** 2


def _integral(interval: BatchInterval, nodes: Tensor, first: Tensor, wanted: Tensor, log_det: Tensor) -> Tensor:
    squared, slope = _contour(interval, nodes)
    half = 0.5 * interval.n_inside[:, None]

    def log_of(t: Tensor, count: Tensor) -> Tensor:
        # A log of zero where nothing is counted must not make a NaN.
        return torch.where(count == 0, 0.0, count * torch.log((t * t)[:, None] - squared))

    reference = (
        log_of(interval.below_rms, interval.n_below[:, None])
        + log_of(interval.a, half)
        + log_of(interval.b, half)
        + log_of(interval.above_rms, interval.n_above[:, None])
    )
    values = torch.where(wanted, ((log_det - reference) * slope).imag, 0.0)
    place = first[:, None]
    lowest, next_one = values.gather(1, place)[:, 0], values.gather(1, place + 1)[:, 0]
    tails = _tail(values[:, -1], values[:, -2]) + _tail(lowest, next_one)
    integral = _step() * (values.sum(1) + tails)
    width = interval.b - interval.a
    return torch.where(width > 0, (interval.n_below + 0.5 * interval.n_inside) * width - integral / math.pi, 0.0)


def _tail(last: Tensor, before: Tensor) -> Tensor:
    """Nodes left out beyond the last one, where values run like ``e^(-u) (alpha + beta u)``."""
    q = math.exp(-_step())
    return last * q / (1 - q) + (last - before * q) * q / (1 - q) ** 2
