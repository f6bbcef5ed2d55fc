"""Scores against float64 SVD: every method, the hard cases, and honesty about the error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import TensorError, UnsupportedDtypeError, UsageError

from support import matrices, truth

TOLERANCE = 1e-4
METHODS = ["auto", "band", "svd"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(300, 300), (257, 513), (641, 233)])
def test_trained_like(shape: tuple[int, int], dtype: torch.dtype, method: str) -> None:
    weight = matrices.trained_like(*shape, seed=1).to(dtype)
    truth.assert_matches(weight, sf.spectrum(weight, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outliers", [(30.0,), (300.0, 100.0), (1000.0,), tuple(np.geomspace(50, 3000, 12))])
def test_planted_outliers(outliers: tuple[float, ...], method: str) -> None:
    weight = matrices.trained_like(320, 448, outliers=outliers, seed=2).to(torch.bfloat16)
    truth.assert_matches(weight, sf.spectrum(weight, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_more_outliers_than_the_rotation_gathers(method: str) -> None:
    weight = matrices.trained_like(384, 768, outliers=tuple(np.linspace(200, 900, 90)), seed=3).to(torch.bfloat16)
    truth.assert_matches(weight, sf.spectrum(weight, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_noise", [1, 2, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_values_in_the_noise_set(n_noise: int, dtype: torch.dtype, method: str) -> None:
    values = matrices.few_noise_values(n_noise)
    weight = matrices.with_singular_values(values, 300, 400, seed=4).to(dtype)
    found = sf.spectrum(weight, method=method)
    assert found.n_noise == n_noise
    truth.assert_matches(weight, found)


@pytest.mark.parametrize("method", METHODS)
def test_no_value_in_the_noise_set(method: str) -> None:
    weight = matrices.with_singular_values(matrices.few_noise_values(0), 300, 400, seed=5).to(torch.float32)
    found = sf.spectrum(weight, method=method)
    assert found.noise_free
    assert found.snr is None
    assert (found.n_noise, found.noise_sum) == (0, 0.0)
    assert found.n_signal == 300
    assert found.signal_sum == pytest.approx(truth.exact(weight).signal_sum, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_condition_one_million(method: str) -> None:
    weight = matrices.with_singular_values(np.geomspace(1e-6, 1.0, 250), 250, 330, seed=6)
    truth.assert_matches(weight, sf.spectrum(weight, method=method))
    truth.assert_matches(weight.to(torch.float32), sf.spectrum(weight.to(torch.float32), method=method))


@pytest.mark.parametrize("method", METHODS)
def test_duplicate_singular_values(method: str) -> None:
    values = np.sort(np.repeat([0.05, 0.1, 0.4, 1.0, 2.0], 50))
    weight = matrices.with_singular_values(values, 250, 300, seed=7)
    truth.assert_matches(weight, sf.spectrum(weight, method=method))


@pytest.mark.parametrize("method", ["auto", "svd"])
@pytest.mark.parametrize(
    "make", [lambda: torch.full((250, 300), 0.5), lambda: torch.outer(torch.arange(1.0, 251), torch.ones(260))]
)
def test_rank_one_and_constant(make, method: str) -> None:
    weight = make()
    found = sf.spectrum(weight, method=method)
    assert found.noise_free
    assert found.snr is None
    assert found.n_signal == 1
    assert found.s_max == pytest.approx(float(weight.to(torch.float64).norm()), rel=1e-6)


@pytest.mark.parametrize("method", ["auto", "svd"])
def test_half_rank(method: str) -> None:
    values = np.concatenate([np.zeros(60), np.linspace(0.01, 1.0, 190)])
    weight = matrices.with_singular_values(values, 250, 300, seed=8)
    expected = truth.exact(weight)
    found = sf.spectrum(weight, method=method)
    assert found.snr == pytest.approx(expected.snr, rel=1e-4)
    assert found.n_noise == expected.n_noise


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 5), (250, 300)])
def test_all_zero(shape: tuple[int, int], method: str) -> None:
    found = sf.spectrum(torch.zeros(shape), method=method)
    assert found.snr == 0.0
    assert not found.noise_free
    assert (found.s_max, found.n_noise) == (0.0, min(shape))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_one_singular_value(shape: tuple[int, int], method: str) -> None:
    weight = torch.arange(1.0, 1.0 + max(shape)).reshape(shape)
    found = sf.spectrum(weight, method=method)
    assert found.noise_free  # the inter-quartile range of one value is zero, so nothing lies at or below it
    assert found.s_max == pytest.approx(float(weight.norm()), rel=1e-5)


def test_vector_counts_as_one_row() -> None:
    assert sf.spectrum(torch.ones(9)).shape == (1, 9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (3, 3), (17, 16), (33, 31), (65, 129)])
def test_small_odd_sizes(shape: tuple[int, int], method: str) -> None:
    weight = matrices.gaussian(*shape, seed=9)
    expected = truth.exact(weight)
    found = sf.spectrum(weight, method=method)
    if math.isinf(expected.snr):
        assert found.noise_free
    else:
        assert found.snr == pytest.approx(expected.snr, rel=1e-4)


@pytest.mark.parametrize("exponent", [-30, -20, 20, 30])
@pytest.mark.parametrize("method", METHODS)
def test_scale_is_taken_out_exactly(exponent: int, method: str) -> None:
    weight = matrices.trained_like(230, 260, seed=10).to(torch.bfloat16)
    plain = sf.spectrum(weight, method=method)
    factor = 2.0 ** (exponent * 3)
    scaled = sf.spectrum(weight * factor, method=method)
    assert plain.snr is not None
    assert scaled.snr == pytest.approx(plain.snr / factor, rel=1e-12)
    assert scaled.n_noise == plain.n_noise


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_scales_beyond_the_square_root_of_float64(factor: float) -> None:
    weight = matrices.trained_like(230, 260, seed=10)
    found = sf.spectrum(weight * factor)
    assert found.snr == pytest.approx(truth.exact(weight).snr / factor, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_nan_and_infinity_are_refused(dtype: torch.dtype, bad: float, method: str) -> None:
    weight = matrices.gaussian(40, 50).to(dtype)
    weight[7, 3] = bad
    with pytest.raises(TensorError, match="NaN or infinity in 1 of 2000"):
        sf.spectrum(weight, method=method)


def test_bad_tensors_and_arguments() -> None:
    with pytest.raises(TensorError, match="3 dimensions"):
        sf.spectrum(torch.ones(2, 2, 2))
    with pytest.raises(TensorError, match="empty"):
        sf.spectrum(torch.ones(0, 4))
    with pytest.raises(UnsupportedDtypeError, match="int8"):
        sf.spectrum(torch.ones(2, 2, dtype=torch.int8))
    for wrong in ({"method": "qr"}, {"criterion": "x"}, {"precision": "half"}, {"tolerance": 0.0}):
        with pytest.raises(UsageError):
            sf.spectrum(torch.ones(2, 2), **wrong)


def test_the_weight_is_not_changed_and_views_are_read_right() -> None:
    weight = matrices.trained_like(300, 420, seed=11).to(torch.float32)
    before = weight.clone()
    straight = sf.spectrum(weight)
    assert torch.equal(weight, before)
    assert sf.spectrum(weight.T.contiguous().T).snr == pytest.approx(straight.snr, rel=1e-6)
    assert sf.spectrum(weight[::2]).snr == pytest.approx(truth.exact(weight[::2]).snr, rel=1e-4)


def test_a_bound_over_the_tolerance_is_stated_not_hidden() -> None:
    weight = matrices.trained_like(320, 448, outliers=(3000.0,), seed=12).to(torch.float32)
    forced = sf.spectrum(weight, method="band", precision="float32", tolerance=1e-9)
    assert forced.error_bound > 1e-9
    assert abs(forced.snr / truth.exact(weight).snr - 1) <= forced.error_bound
    exact = sf.spectrum(weight, tolerance=1e-9)
    assert exact.error_bound <= 1e-9
    assert "float64" in exact.method


def test_precision_and_method_are_recorded() -> None:
    weight = matrices.trained_like(300, 400, seed=13).to(torch.float32)
    assert sf.spectrum(weight, method="svd", precision="float32").method == "svd-float32"
    assert sf.spectrum(weight, method="svd").method == "svd-float64"
    assert sf.spectrum(weight, method="band", precision="float64").method == "band-float64"
    assert sf.spectrum(weight, method="band").method.startswith("band-float32")


def test_a_faulty_reduction_is_noticed_and_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that returns a wrong band (here: one entry off by a percent of the norm) must not set a score."""
    from spectrum_fast.measure.spectra.methods import band as band_method

    honest = band_method.reduce_to_band

    def faulty(matrices: torch.Tensor, *rest: Any) -> torch.Tensor:
        size = float(torch.linalg.matrix_norm(matrices[0]))
        bands = honest(matrices, *rest)
        bands[0, 100, 0] += 0.01 * size
        return bands

    monkeypatch.setattr(band_method, "reduce_to_band", faulty)
    weight = matrices.trained_like(300, 400, seed=14).to(torch.float32)
    found = sf.spectrum(weight)
    assert found.method == "svd-float64"
    assert "a kernel is at fault" in found.reason
    truth.assert_matches(weight, found)
    assert math.isinf(sf.spectrum(weight, method="band").error_bound)
