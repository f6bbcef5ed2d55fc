"""Integrals of a batch, each to an accuracy of its own, against spectra that are simply listed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from spectrum_fast.measure.spectra.batched.sums import COARSEST, FINEST, BatchInterval, integrate
from spectrum_fast.measure.spectra.batched.table import BatchTable

SIZE = 240


class ListedSlices:
    """Counts and log-determinants of spectra that are known, (m, SIZE); remembers which nodes were asked for."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.asked = torch.zeros(0)

    def below(self, points: Tensor) -> Tensor:
        return (self.values[:, None, :] < points[:, :, None]).sum(2)

    def log_det(self, shifts: Tensor, wanted: Tensor) -> Tensor:
        self.asked = wanted.sum(1)
        found = torch.log((self.values[:, None, :] ** 2).to(shifts.dtype) - shifts[:, :, None]).sum(2)
        return torch.where(wanted, found, torch.nan)  # what is not asked for must not count


def spectra() -> Tensor:
    """Noise, equal distances, clusters, one value, an outlier, tiny values."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.linalg.svdvals(torch.randn(SIZE, 300, generator=generator, dtype=torch.float64)) / 30
    equal = torch.arange(1, SIZE + 1, dtype=torch.float64) / SIZE
    clusters = torch.tensor([0.1, 0.2, 0.5, 3.0], dtype=torch.float64).repeat_interleave(SIZE // 4)
    outlier, tiny = equal.clone(), equal**3
    outlier[-1] = 1e4
    return torch.stack([noise, equal, clusters, torch.full_like(equal, 0.7), outlier, tiny]).sort(1).values


@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 1e-4, 1e-1])
def test_integrals_meet_their_stated_errors(tolerance: float) -> None:
    values = spectra()
    slices = ListedSlices(values)
    ends = torch.stack([0.9 * values[:, 0], 1.001 * values[:, SIZE * 2 // 5], 1.001 * values[:, -1]], 1)
    grid = torch.cat([ends, 1.1 * values[:, -1:] * torch.linspace(0, 1, 40, dtype=torch.float64)], 1)
    table = BatchTable.of(grid, slices.below(grid), SIZE)
    a, b, c = (end.contiguous() for end in ends.unbind(1))
    pairs = [(a, b), (b, c), (b, b)]
    sums = [torch.where((a[:, None] < values) & (values < b[:, None]), values, 0.0).sum(1) for a, b in pairs]
    intervals = [BatchInterval.of(table, a, b, total, tolerance) for (a, b), total in zip(pairs, sums, strict=True)]
    for (a, b), total, interval, found in zip(pairs, sums, intervals, integrate(slices, intervals), strict=True):
        exact = (b[:, None] - torch.maximum(values, a[:, None])).clamp(min=0).sum(1)
        assert ((found - exact).abs() <= interval.error() + 1e-13 * SIZE * b).all()
        assert ((interval.accuracy >= FINEST) & (interval.accuracy <= COARSEST)).all()
        finer = interval.accuracy > FINEST
        assert (interval.error()[finer] <= tolerance * total[finer]).all()
    assert (found == 0).all()  # the last interval is empty


def test_a_loose_tolerance_asks_for_fewer_nodes() -> None:
    values = spectra()
    slices = ListedSlices(values)
    asked = []
    for tolerance in (1e-9, 1e-4, 1e-2):
        a, b = 0.9 * values[:, 0], 1.1 * values[:, -1]
        grid = torch.stack([a, b], 1)
        table = BatchTable.of(grid, slices.below(grid), SIZE)
        integrate(slices, [BatchInterval.of(table, a, b, values.sum(1), tolerance)])
        asked.append(slices.asked)
    for more, fewer in pairwise(asked):
        assert (fewer < more).all()
        assert (fewer[:4] < 0.7 * more[:4]).all()  # an outlier and tiny values crowd one end, at any accuracy
