"""Scores of matrices that are never whole in memory, against the float64 SVD of the whole matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectrum
from spectrum_fast.measure.spectra.matrices import Blocks
from spectrum_fast.measure.spectra.methods.svd import _REDUCTION, _REDUCTION_GROWTH

from support.bounds import Truth, in_blocks, judge
from support.families import FAMILIES, draw
from support.matrices import gaussian, trained_like, with_singular_values
from support.truth import assert_matches, exact

RULE = find_criterion("spectrum")
SIDES = {"tall": (700, 300), "wide": (300, 700), "square": (400, 400)}


@pytest.mark.parametrize("shape", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_tame_matrix_is_read_twice(shape, dtype, backend):
    matrix = trained_like(*shape).to(dtype)
    blocks = in_blocks(matrix, 7)
    with use_backend(backend):
        found = compute_spectrum(blocks, RULE)
    assert_matches(matrix, found)
    assert found.shape == shape
    assert blocks.count.passes == 2
    assert found.reason.endswith("; read twice, in 7 blocks")


@pytest.mark.parametrize("shape", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("outliers", [(12.0, 8.0), (250.0, 10.0)], ids=["in the Gram matrix", "in the weights"])
def test_outliers_are_rotated_in_a_second_pass_and_probed_in_two(shape, outliers):
    matrix = trained_like(*shape, outliers=outliers).to(torch.bfloat16)
    blocks = in_blocks(matrix, 7)
    found = compute_spectrum(blocks, RULE, precision="float32")
    assert found.method == "band-float32-rotated"
    assert blocks.count.passes == 4
    assert_matches(matrix, found)


@pytest.mark.parametrize("shape", SIDES.values(), ids=SIDES)
def test_outliers_too_large_for_their_gram_matrix_go_to_float64_where_the_short_side_is_short(shape):
    matrix = trained_like(*shape, outliers=(250.0, 150.0)).to(torch.bfloat16)
    found = compute_spectrum(in_blocks(matrix, 7), RULE)
    assert found.method == "band-float64"
    assert found.reason.endswith("in 7 blocks")
    assert_matches(matrix, found)


@pytest.mark.parametrize("shape", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("exponent", [-30, 30])
def test_scaling_takes_one_more_pass(shape, exponent):
    matrix = (trained_like(*shape) * 2.0**exponent).to(torch.bfloat16)
    blocks = in_blocks(matrix, 7)
    found = compute_spectrum(blocks, RULE)
    assert blocks.count.passes == 3
    assert_matches(matrix, found)


@pytest.mark.parametrize("shape", SIDES.values(), ids=SIDES)
def test_float64_and_svd_fall_back(shape):
    size = min(shape)
    hard = with_singular_values(np.geomspace(1e-13, 1.0, size), *shape)
    found = compute_spectrum(in_blocks(hard, 7), RULE)
    whole = compute_spectrum(hard, RULE)
    assert found.method == whole.method == "svd-float64"
    assert found.snr == pytest.approx(whole.snr, rel=1e-9)
    forced = compute_spectrum(in_blocks(trained_like(*shape).float(), 7), RULE, precision="float64")
    assert forced.method == "band-float64"
    assert_matches(trained_like(*shape).float(), forced)


@pytest.mark.parametrize("method", ["svd", "band"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_method_asked_for_by_name(method, precision):
    matrix = trained_like(500, 300).to(torch.bfloat16)
    found = compute_spectrum(in_blocks(matrix, 7), RULE, method=method, precision=precision)
    assert found.method == f"{method}-{precision}"
    assert found.snr == pytest.approx(exact(matrix).snr, rel=max(found.error_bound, 1e-12))


@pytest.mark.parametrize("count", [1, 40, 300])
def test_the_triangular_factor_has_the_singular_values(count):
    matrix = with_singular_values(np.geomspace(1e-6, 1.0, 120), 6000, 120)
    for oriented in (matrix, matrix.T):
        factor = Blocks(in_blocks(oriented, count)).factor(torch.float64)
        assert factor.shape == (120, 120)
        found = np.linalg.svd(factor.numpy(), compute_uv=False)
        direct = np.linalg.svd(matrix.numpy(), compute_uv=False)
        stated = (
            _REDUCTION + _REDUCTION_GROWTH * math.sqrt(6000)
        ) * 2.0**-52  # which holds for every processor's LAPACK
        assert np.abs(found - direct).max() <= stated


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_not_finite(value, place):
    matrix = gaussian(300, 200).float()
    matrix[place, 3] = value
    with pytest.raises(TensorError, match="NaN or infinity in 1 of 60000 entries"):
        compute_spectrum(in_blocks(matrix, 7), RULE)


def test_zero_and_one_row():
    zero = compute_spectrum(in_blocks(torch.zeros(300, 200), 7), RULE)
    assert (zero.snr, zero.method) == (0.0, "exact")
    row = gaussian(1, 5000).float()
    assert compute_spectrum(in_blocks(row, 7), RULE).s_max == pytest.approx(float(row.norm()), rel=1e-6)


def check_family(name: str, seed: int, smallest: int, largest: int) -> None:
    matrix = draw(name, seed, smallest, largest)
    found = compute_spectrum(in_blocks(matrix, 1 + seed % 9), RULE)
    whole = compute_spectrum(matrix, RULE)
    assert found.noise_free == whole.noise_free
    assert judge(Truth.of(matrix), RULE, found).ratio <= 1, (found, whole)


@pytest.mark.parametrize("name", FAMILIES)
def test_stated_bounds_hold(name):
    for seed in range(4):
        check_family(name, seed, 100, 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_stated_bounds_hold_for_many(name):
    for seed in range(4, 120):
        check_family(name, seed, 2, 500)
