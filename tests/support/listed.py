"""Spectra that are simply listed, in place of bands."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.sturm.brackets import narrow_by
from spectrum_fast.measure.spectra.counts import CountTable


class ListedSlices:
    """Counts and log-determinants of spectra that are known, (m, size); remembers which nodes were asked for."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.asked = torch.zeros(0)

    def below(self, points: Tensor) -> Tensor:
        return (self.values[:, None, :] < points[:, :, None]).sum(2)

    def narrow(self, lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
        return narrow_by(self.below, lo, hi, ranks, enough)

    def log_det(self, shifts: Tensor, wanted: Tensor) -> Tensor:
        self.asked = wanted.sum(1)
        found = torch.log((self.values[:, None, :] ** 2).to(shifts.dtype) - shifts[:, :, None]).sum(2)
        return torch.where(wanted, found, torch.nan)  # what is not asked for must not count

    def table(self, *ends: Tensor) -> CountTable:
        """Counts at some points and over a grid."""
        top = 1.1 * torch.maximum(self.values[:, -1:], torch.stack(ends, 1).amax(1, keepdim=True))
        points = torch.cat([torch.stack(ends, 1), top * torch.linspace(0, 1, 40, dtype=torch.float64)], 1)
        return CountTable.of(points, self.below(points), self.values.shape[1])
