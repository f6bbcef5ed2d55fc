"""What the counts of a batch tell of each spectrum: ``spectra.counting.CountTable`` for a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.batched.rounding import BatchRounding

_FEW = 16


@dataclass(frozen=True)
class BatchTable:
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
    def of(cls, points: Tensor, counts: Tensor, size: int) -> BatchTable:
        """Sort what was counted; rounding can make two counts one apart come in the wrong order, which is mended."""
        ordered, order = torch.sort(points, dim=1, stable=True)
        return cls(ordered.contiguous(), torch.cummax(counts.gather(1, order), dim=1).values, size)

    def with_counts(self, points: Tensor, counts: Tensor) -> BatchTable:
        """The table with more points in it."""
        return BatchTable.of(torch.cat([self.points, points], 1), torch.cat([self.counts, counts], 1), self.size)

    def at(self, t: Tensor) -> Tensor:
        """``N(t)`` for t (m,) that are points of the table; float64."""
        position = torch.searchsorted(self.points, t[:, None]).clamp(max=self.points.shape[1] - 1)
        return self.counts.gather(1, position)[:, 0].to(torch.float64)

    def bracket(self, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Points lo, hi (m, k) with ``N(lo) <= rank < N(hi)`` for ranks (k,), from 0."""
        wanted = ranks.expand(self.counts.shape[0], -1).contiguous()
        position = torch.searchsorted(self.counts.contiguous(), wanted, right=True)
        last = self.points.shape[1] - 1
        lo = self.points.gather(1, (position - 1).clamp(min=0))
        return torch.where(position > 0, lo, 0.0), self.points.gather(1, position.clamp(max=last))

    def typical_below(self, a: Tensor) -> Tensor:
        """Root mean square of the values below a (m,), by cells; a itself where there are none."""
        return self._rms(self._centres() < a[:, None], a)

    def typical_above(self, b: Tensor) -> Tensor:
        """Root mean square of the values above b (m,), by cells; b itself where there are none."""
        return self._rms(self._centres() > b[:, None], b)

    def sum_between(self, a: Tensor, b: Tensor) -> Tensor:
        """A lower bound on the sum of the values in [a, b] (both (m,)), from the cells."""
        lower, upper = self.points[:, :-1], self.points[:, 1:]
        inside = (lower >= a[:, None]) & (upper <= b[:, None])
        return torch.where(inside, self._weights() * lower, 0.0).sum(1)

    def rounding_error(self, a: Tensor, b: Tensor, rounding: BatchRounding) -> Tensor:
        """Sum over the values in [a, b] (both (m,)) of their uncertainty, largest at the lower edge of each cell."""
        lower, upper = self.points[:, :-1], self.points[:, 1:]
        inside = (lower >= a[:, None]) & (upper <= b[:, None])
        weights = torch.where(inside, self._weights(), 0.0)
        each = (weights * rounding.uncertainty(lower)).sum(1)
        mean = (weights * rounding.mean_uncertainty(lower)).sum(1)
        return torch.where(weights.sum(1) <= _FEW, each, mean)

    def outlier_split(self, start: Tensor, top: Tensor) -> Tensor:
        """A point of the table between bulk and outliers where the largest value towers, else ``top``; all (m,)."""
        few = self.size - 8
        if few <= 0:
            return top
        wanted = torch.full_like(self.counts[:, :1], few)
        position = torch.searchsorted(self.counts.contiguous(), wanted)
        point = self.points.gather(1, position.clamp(max=self.points.shape[1] - 1))[:, 0]
        return torch.where((start < point) & (point < 0.1 * top), point, top)

    def _centres(self) -> Tensor:
        return 0.5 * (self.points[:, 1:] + self.points[:, :-1])

    def _weights(self) -> Tensor:
        return torch.diff(self.counts, dim=1).to(torch.float64)

    def _rms(self, inside: Tensor, default: Tensor) -> Tensor:
        weights = torch.where(inside, self._weights(), 0.0)
        total = weights.sum(1)
        mean = (weights * self._centres().square()).sum(1) / total.clamp(min=1)
        return torch.where(total > 0, torch.sqrt(mean), default)
