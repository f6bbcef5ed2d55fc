"""What values exceed points by, of a batch, each to an accuracy of its own, against spectra that are simply listed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spectrum_fast.measure.spectra import contour
from spectrum_fast.measure.spectra.contour import PLACES, Lines, excess

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


@np.errstate(divide="ignore")  # as the engine computes
def lines_at(points: Tensor, values: Tensor, slices: ListedSlices, wanted: Tensor, form: Any) -> Lines:
    """Lines at points (m, i) of a spectrum, with counts there and over a grid."""
    table = slices.table(*(form(points[:, i].contiguous()) for i in range(points.shape[1])))
    return Lines.of(table, form((values * values).sum(1)), form(points), form(wanted))


def exact_excess(values: Tensor, points: Tensor) -> Tensor:
    return (values[:, None] - points[..., None]).clamp(min=0).sum(-1)


@pytest.mark.parametrize("form", [torch.as_tensor, np.asarray], ids=["torch", "numpy"])
@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 1e-4, 1e-1])
def test_sums_meet_their_stated_errors(tolerance: float, form: Any) -> None:
    values = spectra()
    slices = ListedSlices(values)
    low, middle, top = 0.9 * values[:, 0], 1.001 * values[:, SIZE * 2 // 5], 1.001 * values[:, -1]
    points = torch.stack([low, middle, values[:, -2].clone(), top], 1)
    exact = exact_excess(values, points)
    wanted = tolerance * exact.clamp(min=1e-3)
    lines = lines_at(points, values, slices, wanted, form)
    found, error = (torch.as_tensor(of) for of in (excess(slices, lines), lines.error))
    assert ((found - exact).abs() <= error).all()
    crowded = torch.as_tensor(lines.last) == PLACES - 1
    assert not crowded.any() or tolerance < 1e-4
    fine = torch.as_tensor(lines.step) > np.pi**2 / 31.9
    assert (error <= 1.2 * wanted)[~crowded & fine].all()
    assert (found[:, 3] == 0).all()  # nothing lies above the last point
    assert (error[:, 3] == 0).all()


def test_below_the_smallest_value_shifts_are_real_and_few() -> None:
    values = spectra()[:2]
    slices = ListedSlices(values)
    asked = []
    for points in (0.9 * values[:, :1], 1.001 * values[:, 40:41]):
        lines = lines_at(points, values, slices, 1e-6 * values.sum(1)[:, None], np.asarray)
        excess(slices, lines)
        asked.append(slices.asked)
        assert bool((slices.shifts.imag == 0).all()) == (len(asked) == 1)
    assert asked[0][0] < asked[1][0] < 30


def test_a_loose_tolerance_asks_for_fewer_nodes() -> None:
    values = spectra()[:6]
    slices = ListedSlices(values)
    asked = []
    for tolerance in (1e-9, 1e-5, 1e-2):
        lines = lines_at(values[:, 100:101] * 1.01, values, slices, tolerance * values.sum(1)[:, None], np.asarray)
        excess(slices, lines)
        asked.append(slices.asked)
    for more, fewer in pairwise(asked):
        assert (fewer[more > 0] < 0.75 * more[more > 0]).all()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=40),
    point=st.one_of(st.floats(0.02, 10.0), st.integers(0, 39)),
    digits=st.floats(0.5, 9.0),
)
def test_excess_of_any_spectrum_over_any_point(values: list[float], point: float | int, digits: float) -> None:
    spectrum = torch.from_numpy(np.sort(np.array(values)))[None]
    slices = ListedSlices(spectrum)
    place = values[point % len(values)] if isinstance(point, int) else point  # at a value, too
    points = torch.tensor([[place]], dtype=torch.float64)
    lines = lines_at(points, spectrum, slices, torch.full((1, 1), 10.0**-digits, dtype=torch.float64), np.asarray)
    off = abs(excess(slices, lines) - exact_excess(spectrum, points).numpy())
    assert (off <= lines.error).all()


@pytest.mark.parametrize("step", [0.31, 0.5, 0.8, 1.19])
def test_what_lies_beyond_the_nodes_is_no_more_than_is_stated(step: float) -> None:
    q = np.exp(-step)
    below = np.exp(np.arange(-120, 0) * step)
    distance = np.logspace(-5, 5, 2001)[:, None]
    terms = below * 0.5 * np.log(distance**2 + below**2)
    off = abs(step * (terms.sum(1) - 0.5 * np.log(distance[:, 0] ** 2 + 1) * q / (1 - q)))
    assert (off <= contour._NEAR).all()
    assert (off * distance[:, 0] ** 2 <= contour._FAR).all()
    above = np.exp(np.arange(0, 60) * step)
    for t in (0.0, 0.01, 0.1, 0.3, 1.0):
        s = np.logspace(-1, 0, 101)[:, None]
        square = (s / (t + 1j * above)) ** 2
        terms = above * np.real(np.log1p(-square) + square)
        off = abs(step * (terms[:, 1:].sum(1) - terms[:, 0] * q**3 / (1 - q**3)))
        s = s[:, 0]
        assert (off <= s**4 * (contour._OWN * s**2 + contour._OF_LINE * t**2) + 1e-12).all()
