"""What counts tell of the spectra of a batch: brackets of order statistics, and a histogram for nothing extra.

``N(t)``, the number of singular values below ``t``, is a Sturm count at ``t^2``. Order statistics come from
multisection: brackets are split at interior points, those of a matrix together; on a GPU those of all matrices.

Source: Parlett, The Symmetric Eigenvalue Problem, ch. 3 (slicing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.sturm import count_below, log_det, narrow, prepare
from spectrum_fast.measure.spectra.rounding import Rounding
from spectrum_fast.measure.spectra.schedule import Schedule

_FEW = 16
"""Sums over no more values than this are bounded by the error of each one, not by the mean error."""


class Slices:
    """Counts and log-determinants of a batch of bands, in terms of singular values.

    Args:
        bands: (m, n, b + 1) float64, finite; eigenvalues are squared singular values.
    """

    def __init__(self, bands: Tensor) -> None:
        self._bands = prepare(bands)

    def below(self, points: Tensor) -> Tensor:
        """How many singular values lie below each point: (m, s) float64 at least 0 -> (m, s) int64."""
        return count_below(self._bands, points * points)

    def narrow(self, lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
        """Brackets of order statistics, narrowed; see :func:`spectrum_fast.measure.ops.sturm.narrow`."""
        return narrow(self._bands, lo, hi, ranks, enough)

    def log_det(self, shifts: Tensor, wanted: Tensor) -> Tensor:
        """``sum_i log(s_i^2 - z)``: (m, s) complex128 with Im z >= 0 -> (m, s) complex128; 0 where not wanted."""
        return log_det(self._bands, shifts, wanted)


@dataclass(frozen=True)
class CountTable:
    """``N(t)`` of each matrix at the points asked so far.

    Attributes:
        points: (m, p) ascending.
        counts: (m, p) ``N`` there, non-decreasing, int64.
        size: number of singular values of each matrix.
    """

    points: Tensor
    counts: Tensor
    size: int

    @classmethod
    def of(cls, points: Tensor, counts: Tensor, size: int) -> CountTable:
        """Sort what was counted; rounding can make two counts one apart come in the wrong order, which is mended."""
        ordered, order = torch.sort(points, dim=1, stable=True)
        return cls(ordered.contiguous(), torch.cummax(counts.gather(1, order), dim=1).values, size)

    def with_counts(self, points: Tensor, counts: Tensor) -> CountTable:
        """The table with more points in it."""
        return CountTable.of(torch.cat([self.points, points], 1), torch.cat([self.counts, counts], 1), self.size)

    def below(self, t: Tensor) -> Tensor:
        """``N(t)`` for t (m, s) that are points of the table; float64."""
        position = torch.searchsorted(self.points, t.contiguous()).clamp(max=self.points.shape[1] - 1)
        return self.counts.gather(1, position).to(torch.float64)

    def bracket(self, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Points lo, hi (m, k) with ``N(lo) <= rank < N(hi)`` for ranks (k,), from 0."""
        wanted = ranks.expand(self.counts.shape[0], -1).contiguous()
        position = torch.searchsorted(self.counts.contiguous(), wanted, right=True)
        last = self.points.shape[1] - 1
        lo = self.points.gather(1, (position - 1).clamp(min=0))
        return torch.where(position > 0, lo, 0.0), self.points.gather(1, position.clamp(max=last))

    def typical_beside(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Root mean squares of the values below each a and above each b (m, i), by cells; a and b if there are none."""
        centres = self._centres[:, None]
        return self._rms(centres < a[..., None], a), self._rms(centres > b[..., None], b)

    def inside(self, a: Tensor, b: Tensor) -> Tensor:
        """How many values each cell holds, of those that lie in [a, b] (both (m, i)); (m, i, p - 1) float64."""
        cells = (self.points[:, None, :-1] >= a[..., None]) & (self.points[:, None, 1:] <= b[..., None])
        return torch.where(cells, self._weights[:, None], 0.0)

    def least_sums(self, inside: Tensor) -> Tensor:
        """Lower bounds on sums of values (m, i), from how many each cell holds."""
        return (inside * self.points[:, None, :-1]).sum(-1)

    def rounding_errors(self, inside: Tensor, rounding: Rounding) -> Tensor:
        """Sums of the uncertainty of values (m, i), largest at the lower edge of each cell, from how many it holds."""
        lower = self.points[:, :-1]
        each = (inside * rounding.uncertainty(lower)[:, None]).sum(-1)
        together = torch.minimum(rounding.uncertainty_together(inside, lower), each)
        return torch.where(inside.sum(-1) <= _FEW, each, together)

    def outlier_split(self, start: Tensor, top: Tensor) -> Tensor:
        """A point of the table between bulk and outliers where the largest value towers, else ``top``; all (m,)."""
        few = self.size - 8
        if few <= 0:
            return top
        wanted = torch.full_like(self.counts[:, :1], few)
        position = torch.searchsorted(self.counts.contiguous(), wanted)
        point = self.points.gather(1, position.clamp(max=self.points.shape[1] - 1))[:, 0]
        return torch.where((start < point) & (point < 0.1 * top), point, top)

    @cached_property
    def _centres(self) -> Tensor:
        return 0.5 * (self.points[:, 1:] + self.points[:, :-1])

    @cached_property
    def _weights(self) -> Tensor:
        return torch.diff(self.counts, dim=1).to(torch.float64)

    def _rms(self, inside: Tensor, default: Tensor) -> Tensor:
        weights = torch.where(inside, self._weights[:, None], 0.0)
        total = weights.sum(-1)
        mean = (weights * self._centres.square()[:, None]).sum(-1) / total.clamp(min=1)
        return torch.where(total > 0, torch.sqrt(mean), default)


def to_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers of the host on the device; a plain ``torch.tensor`` there waits for all that is under way."""
    on_host = torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


@cache
def constants(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same, once and for all, for numbers of which there are few: a graph that is replayed finds them there.

    They are waited for when they are made, so that every stream finds them.
    """
    made = to_device(numbers, dtype, device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return made


_MOST_TIMES = 16
"""Narrow at both ends of a bracket is what is wanted: it changes little within one, so that twice is the rule."""


def narrow_brackets(
    slices: Slices,
    table: CountTable,
    ranks: list[int],
    width: Callable[[Tensor], Tensor],
    schedule: Schedule,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Brackets lo, hi (m, k) of order statistics, ``N(lo) <= rank < N(hi)``, narrowed by multisection.

    Args:
        slices: counts.
        table: counts so far; its last point must lie above every value asked for.
        ranks: k ascending ranks from 0 (smallest) to ``size - 1`` (largest).
        width: the bracket width that is narrow enough near values (m, k).
        schedule: one that waits goes on until every bracket is narrow enough.
        eps: to which the spectra are rounded, which sets how many rounds one takes that does not wait.
    """
    matrices, device = table.points.shape[0], table.points.device
    wanted = constants(tuple(ranks), torch.int64, device)
    lo, hi = table.bracket(wanted)
    if schedule.waits:
        enough = width(hi)
        for _ in range(_MOST_TIMES):
            lo, hi = slices.narrow(lo, hi, wanted, enough)
            enough = width(hi)
            if not bool((hi - lo > enough).any()):
                break
        return lo, hi
    interior = schedule.interior_points(matrices * len(ranks))
    fractions = torch.arange(1, interior + 1, dtype=torch.float64, device=device) / (interior + 1)
    for _ in range(schedule.rounds(matrices, interior, eps)):
        points = lo[..., None] + (hi - lo)[..., None] * fractions
        counts = slices.below(points.flatten(1)).view_as(points)
        passed = (torch.cummax(counts, dim=-1).values <= wanted[:, None]).sum(-1, keepdim=True)
        edges = torch.cat([lo[..., None], points, hi[..., None]], dim=-1)
        lo, hi = edges.gather(-1, passed)[..., 0], edges.gather(-1, passed + 1)[..., 0]
    return lo, hi
