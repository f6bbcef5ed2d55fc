"""Histograms against float64 singular values: equal but for values within rounding of an edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import TensorError
from spectrum_fast.measure.spectra.histogram import Histogram

from support import families, matrices

METHODS = [("band", "float32"), ("band", "float64"), ("svd", "float64"), ("auto", "auto")]
MATRICES = {
    "noise, square": lambda: matrices.gaussian(300, 300, seed=1),
    "noise, thin": lambda: matrices.gaussian(220, 1800, seed=2),
    "trained": lambda: matrices.trained_like(257, 513, seed=3),
    "outliers": lambda: matrices.trained_like(320, 448, outliers=(30.0, 300.0, 1000.0), seed=4),
    "repeated": lambda: matrices.with_singular_values(np.repeat([0.05, 0.1, 0.4, 1.0, 2.0], 50), 250, 300, seed=5),
    "geometric": lambda: matrices.with_singular_values(np.geomspace(1e-6, 1.0, 250), 250, 330, seed=6),
    "one value": lambda: matrices.with_singular_values(np.full(200, 0.7), 200, 240, seed=7),
}


def assert_counts(weight: torch.Tensor, found: sf.Spectrum) -> None:
    """Each cumulative count equals numpy's, or differs by no more values than lie within rounding of that edge."""
    values = np.sort(np.linalg.svd(weight.to(torch.float64).numpy(), compute_uv=False))
    histogram = found.histogram
    edges = histogram.edges
    assert len(edges) == len(histogram.counts) + 1
    assert (np.diff(edges) > 0).all() or len(histogram.counts) == 1
    assert sum(histogram.counts) == min(weight.shape)
    eps = np.finfo(np.float32 if "float32" in found.method else np.float64).eps
    # s^2 is computed to some eps ||G||_F, hence s to that over 2 s, and to its root at zero.
    square_error = 4 * eps * np.sqrt((values**4).sum())
    inner = edges[1:-1]
    low, high = np.sqrt(np.maximum(inner**2 - square_error, 0)), np.sqrt(inner**2 + square_error)
    below = np.cumsum(histogram.counts)[:-1]
    assert (np.searchsorted(values, low * (1 - 4 * eps)) <= below).all()
    assert (below <= np.searchsorted(values, high * (1 + 4 * eps), side="right")).all()
    assert values[0] >= edges[0] * (1 - 1e-5) - np.sqrt(square_error)
    assert values[-1] <= edges[-1] * (1 + 1e-5)


@pytest.mark.parametrize(("method", "precision"), METHODS)
@pytest.mark.parametrize("name", MATRICES)
def test_counts_are_those_of_the_singular_values(name: str, method: str, precision: str) -> None:
    weight = MATRICES[name]().to(torch.float32)
    assert_counts(weight, sf.spectrum(weight, method=method, precision=precision))


@pytest.mark.parametrize("name", families.FAMILIES)
def test_hostile_families(name: str) -> None:
    for seed in range(4):
        weight = families.draw(name, seed, 1, 260)
        found = sf.spectrum(weight)
        if found.s_max > 0 and found.method != "band-float32-rotated":
            assert_counts(weight, found)
        assert sum(found.histogram.counts) == min(weight.shape)


def test_equal_to_numpy_where_no_value_is_near_an_edge() -> None:
    weight = matrices.trained_like(400, 600, outliers=(40.0,), seed=8)
    values = np.linalg.svd(weight.numpy(), compute_uv=False)
    found = sf.spectrum(weight, method="band", precision="float64").histogram
    edges = np.append(found.edges[:-1], np.inf)  # the largest value is known to rounding only, and so is the last edge
    assert np.histogram(values, edges)[0].tolist() == list(found.counts)
    assert found.linear_bins == 48
    assert found.counts[-1] == 1  # the outlier, far from the bulk


def test_pure_noise_needs_no_tail() -> None:
    found = sf.spectrum(matrices.gaussian(300, 500, seed=9)).histogram
    assert found.knee == found.end
    assert len(found.counts) == 64


def test_zero_matrix_and_vectors() -> None:
    assert sf.spectrum(torch.zeros(5, 7)).histogram == Histogram(0.0, 0.0, 0.0, 1, (5,))
    assert sf.spectrum(torch.ones(9)).histogram.counts == (1,)


def test_scaling_by_a_power_of_two_moves_the_edges_only() -> None:
    weight = matrices.trained_like(220, 300, outliers=(20.0,), seed=10)
    plain = sf.spectrum(weight).histogram
    scaled = sf.spectrum(weight * 2.0**-60).histogram
    assert scaled.counts == plain.counts
    np.testing.assert_allclose(scaled.edges * 2.0**60, plain.edges, rtol=1e-9)


def test_edges_that_collapse_become_one_bin() -> None:
    assert Histogram(0.0, 0.3, 2.0, 1, (3, 4)).scaled(5e-324) == Histogram(0.0, 1e-323, 1e-323, 1, (7,))


@pytest.mark.parametrize(
    "fields",
    [
        (1.0, 0.5, 2.0, 1, (1, 1)),
        (0.0, 1.0, float("inf"), 1, (1, 1)),
        (0.0, 1.0, 1.0, 1, (1, 1)),
        (0.0, 0.0, 1.0, 1, (1, 1)),
        (0.0, 1.0, 2.0, 0, (1,)),
        (0.0, 1.0, 2.0, 1, (1, -1)),
    ],
)
def test_impossible_histograms_are_refused(fields: tuple) -> None:
    with pytest.raises(TensorError, match="histogram"):
        Histogram(*fields)
