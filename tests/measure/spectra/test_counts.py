"""Brackets of order statistics from counts, against spectra that are simply listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrum_fast.measure.spectra.counts import CountTable, narrow_brackets
from spectrum_fast.measure.spectra.schedule import ADAPTIVE, FIXED, Schedule

from support.listed import ListedSlices

rng = np.random.default_rng(0)
SPECTRA = {
    "gaussian": np.linalg.svd(rng.standard_normal((200, 300)), compute_uv=False) / 30,
    "equispaced": np.arange(1, 401) / 400,
    "clusters": np.repeat([0.1, 0.2, 0.5, 3.0], 50) + 1e-9 * rng.standard_normal(200),
    "all equal": np.full(64, 0.7),
    "outliers": np.r_[rng.random(300), 1000.0, 300.0],
    "one far outlier": np.r_[rng.random(2000) ** 4, 1e5],
    "two tiny": np.r_[1e-6, 1e-4, rng.random(300)],
    "single": np.array([2.5]),
}
SCHEDULES = pytest.mark.parametrize("schedule", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])


def narrow(values: np.ndarray, ranks: list[int], width: float, schedule: Schedule, form: Any = torch.tensor) -> Any:
    slices = ListedSlices(torch.from_numpy(np.sort(values))[None])
    grid = form(np.linspace(0.0, 1.1 * values.max(), 20)[None])
    table = CountTable.of(grid, slices.below(grid), len(values))
    lo, hi = narrow_brackets(slices, table, ranks, lambda t: width * t, schedule, 1e-12)
    return lo[0], hi[0]


@SCHEDULES
@pytest.mark.parametrize("form", [torch.tensor, np.array], ids=["torch", "numpy"])
@pytest.mark.parametrize("name", SPECTRA)
def test_brackets_hold_the_order_statistics(name: str, form: Any, schedule: Schedule) -> None:
    values = np.sort(SPECTRA[name])
    ranks = sorted({0, len(values) // 4, len(values) // 2, len(values) - 1})
    lo, hi = narrow(values, ranks, 1e-10, schedule, form)
    for place, rank in enumerate(ranks):
        assert lo[place] <= values[rank] < hi[place]
        assert hi[place] - lo[place] <= 1e-10 * (hi[place] if schedule.waits else values[-1])


def test_brackets_come_back_even_where_the_width_cannot_be_reached() -> None:
    lo, hi = narrow(np.array([1.0, 2.0, 3.0]), [1], 0.0, ADAPTIVE)
    assert lo <= 2.0 <= hi
    assert hi - lo < 1e-14


def test_counts_out_of_order_do_not_turn_a_bracket_around() -> None:
    class Disordered(ListedSlices):
        def _below(self, points: Tensor) -> Tensor:
            counts = super()._below(points)
            return counts + (torch.arange(points.shape[1]) % 2) * ((counts > 0) & (counts < self.values.shape[1]))

    for schedule in (ADAPTIVE, FIXED):
        slices = Disordered(torch.linspace(0.1, 1.0, 50, dtype=torch.float64)[None])
        grid = torch.linspace(0.0, 1.1, 20, dtype=torch.float64)[None]
        table = CountTable.of(grid, slices.below(grid), 50)
        assert (table.counts[:, 1:] >= table.counts[:, :-1]).all()
        lo, hi = narrow_brackets(slices, table, [0, 12, 13, 49], lambda t: 1e-9 * t, schedule, 1e-12)
        assert (lo < hi).all()
        assert ((hi - lo) < 1e-6).all()
