"""Spectra that are simply listed, in place of bands."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.sturm.brackets import narrow_by
from spectrum_fast.measure.spectra.arrays import Array, in_form_of, tensor_of
from spectrum_fast.measure.spectra.counts import CountTable


class ListedSlices:
    """Counts and log-determinants of known spectra (m, size) in the form asked in; remembers which were asked."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.asked = torch.zeros(0)
        self.shifts = torch.zeros(0)

    def below(self, points: Array) -> Array:
        return in_form_of(points, self._below(tensor_of(points)).double())

    def _below(self, points: Tensor) -> Tensor:
        return (self.values[:, None, :] < points[:, :, None]).sum(2)

    def narrow(self, lo: Array, hi: Array, ranks: Array, enough: Array) -> tuple[Array, Array]:
        found = narrow_by(
            self._below, *(tensor_of(one) for one in (lo, hi)), tensor_of(ranks).long(), tensor_of(enough)
        )
        return in_form_of(lo, found[0]), in_form_of(lo, found[1])

    def log_abs_det(self, shifts: Array, wanted: Array) -> Array:
        z, asked = tensor_of(shifts), tensor_of(wanted)
        self.asked, self.shifts = asked.sum(1), z[asked]
        found = (self.values[:, None, :] ** 2 - z[:, :, None]).abs().log().sum(2)
        return in_form_of(shifts, torch.where(asked, found, torch.nan))  # what is not asked for must not count

    def table(self, *ends: Array) -> CountTable:
        """Counts at some points, and over a grid."""
        points = torch.stack([tensor_of(end) for end in ends], 1)
        top = 1.1 * torch.maximum(self.values[:, -1:], points.amax(1, keepdim=True))
        points = in_form_of(ends[0], torch.cat([points, top * torch.linspace(0, 1, 40, dtype=torch.float64)], 1))
        return CountTable.of(points, self.below(points), self.values.shape[1])
