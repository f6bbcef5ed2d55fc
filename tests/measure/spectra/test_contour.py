"""Integrals of a batch, each to an accuracy of its own, against spectra that are simply listed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spectrum_fast.measure.spectra.contour import COARSEST, FINEST, SHARE, Intervals, integrate

from support.listed import ListedSlices

SIZE = 240


def spectra() -> Tensor:
    """Noise, equal distances, clusters, one value, an outlier, tiny values, two that are far smaller than the rest."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.linalg.svdvals(torch.randn(SIZE, 300, generator=generator, dtype=torch.float64)) / 30
    equal = torch.arange(1, SIZE + 1, dtype=torch.float64) / SIZE
    clusters = torch.tensor([0.1, 0.2, 0.5, 3.0], dtype=torch.float64).repeat_interleave(SIZE // 4)
    outlier, tiny, two = equal.clone(), equal**3, equal.clone()
    outlier[-1], two[:2] = 1e4, torch.tensor([1e-6, 1e-4])
    return torch.stack([noise, equal, clusters, torch.full_like(equal, 0.7), outlier, tiny, two]).sort(1).values


def exact_integral(values: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (b[:, None] - torch.maximum(values, a[:, None])).clamp(min=0).sum(1)


@pytest.mark.parametrize("form", [torch.as_tensor, np.asarray], ids=["torch", "numpy"])
@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 1e-4, 1e-1])
def test_integrals_meet_their_stated_errors(tolerance: float, form: Any) -> None:
    values = spectra()
    slices = ListedSlices(values)
    low, middle, top = 0.9 * values[:, 0], 1.001 * values[:, SIZE * 2 // 5], 1.001 * values[:, -1]
    table = slices.table(*(form(end) for end in (low, middle, top)))
    a, b = torch.stack([low, middle, low, top], 1), torch.stack([middle, top, top, top], 1)
    inside = (a[..., None] < values[:, None]) & (values[:, None] < b[..., None])
    sums = torch.where(inside, values[:, None], 0.0).sum(-1)
    intervals = Intervals.of(table, form(a), form(b), form(sums), tolerance)
    found, error = (torch.as_tensor(of) for of in (integrate(slices, intervals), intervals.error()))
    accuracy = torch.as_tensor(intervals.accuracy)
    exact = torch.stack([exact_integral(values, a[:, i], b[:, i]) for i in range(4)], 1)
    assert ((found - exact).abs() <= error + 1e-13 * SIZE * b).all()
    assert ((accuracy >= FINEST) & (accuracy <= COARSEST)).all()
    finer = accuracy > FINEST
    assert (error[finer] <= 1.001 * SHARE * tolerance * sums[finer]).all()
    assert (found[:, 3] == 0).all()  # the last interval is empty


def test_a_loose_tolerance_asks_for_fewer_nodes() -> None:
    values = spectra()[:6]
    slices = ListedSlices(values)
    asked = []
    for tolerance in (1e-9, 1e-4, 1e-2):
        a, b = 0.9 * values[:, 0], 1.1 * values[:, -1]
        intervals = Intervals.of(slices.table(a, b), a[:, None], b[:, None], values.sum(1)[:, None], tolerance)
        integrate(slices, intervals)
        asked.append(slices.asked)
    for more, fewer in pairwise(asked):
        assert (fewer < more).all()
        assert (fewer[:4] < 0.75 * more[:4]).all()  # an outlier and tiny values crowd one end, at any accuracy


def test_an_integral_from_zero() -> None:
    values = spectra()[:1]
    slices = ListedSlices(values)
    a, b = torch.zeros(1, dtype=torch.float64), values[:, SIZE // 2].clone()
    intervals = Intervals.of(slices.table(a, b), a[:, None], b[:, None], values.sum(1)[:, None], 1e-6)
    found = integrate(slices, intervals)
    assert float(found) == pytest.approx(float(exact_integral(values, a, b)), abs=1e-4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=40),
    ends=st.tuples(st.floats(0.02, 10.0), st.floats(0.02, 10.0)),
)
def test_integral_of_any_spectrum(values: list[float], ends: tuple[float, float]) -> None:
    spectrum = torch.from_numpy(np.sort(np.array(values)))[None]
    slices = ListedSlices(spectrum)
    a, b = (torch.tensor([end], dtype=torch.float64) for end in (min(ends), max(ends)))
    intervals = Intervals.of(slices.table(a, b), a[:, None], b[:, None], torch.ones(1, 1, dtype=torch.float64), 1e-4)
    found = integrate(slices, intervals)
    assert abs(float(found - exact_integral(spectrum, a, b))) <= float(intervals.error()) + 1e-10
