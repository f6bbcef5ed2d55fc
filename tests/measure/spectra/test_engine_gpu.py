"""The engine on CUDA tensors: the key cases of test_engine.py with the same assertions; skipped without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import TensorError

from support import matrices, truth

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCE = 1e-4
METHODS = ["auto", "band", "svd"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(300, 300), (257, 513), (1111, 640)])
def test_trained_like(shape: tuple[int, int], dtype: torch.dtype, method: str) -> None:
    weight = matrices.trained_like(*shape, seed=1).to(dtype).cuda()
    truth.assert_matches(weight, sf.spectrum(weight, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outliers", [(30.0,), (1000.0,), tuple(np.geomspace(50, 3000, 12))])
def test_planted_outliers(outliers: tuple[float, ...], method: str) -> None:
    weight = matrices.trained_like(320, 448, outliers=outliers, seed=2).to(torch.bfloat16).cuda()
    truth.assert_matches(weight, sf.spectrum(weight, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_noise", [1, 2, 30])
def test_few_values_in_the_noise_set(n_noise: int, method: str) -> None:
    weight = matrices.with_singular_values(matrices.few_noise_values(n_noise), 300, 400, seed=4).float().cuda()
    found = sf.spectrum(weight, method=method)
    assert found.n_noise == n_noise
    truth.assert_matches(weight, found)


def test_bulk_large_enough_for_the_kernels_own_sizes() -> None:
    weight = matrices.trained_like(1536, 2048, outliers=(20.0,), seed=5).to(torch.bfloat16).cuda()
    found = sf.spectrum(weight)
    assert found.method.startswith("band-float32"), found.reason
    truth.assert_matches(weight, found)


def test_rank_one() -> None:
    weight = torch.outer(torch.arange(1.0, 251), torch.ones(260)).cuda()
    found = sf.spectrum(weight)
    assert found.noise_free
    assert found.snr is None
    assert found.n_signal == 1
    assert found.s_max == pytest.approx(float(weight.double().norm()), rel=1e-6)


def test_all_zero() -> None:
    found = sf.spectrum(torch.zeros(250, 300, device="cuda"))
    assert found.snr == 0.0
    assert (found.s_max, found.n_noise) == (0.0, 250)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite(bad: float) -> None:
    weight = matrices.gaussian(300, 310).float().cuda()
    weight[7, 11] = bad
    with pytest.raises(TensorError, match="1 of 93000 entries"):
        sf.spectrum(weight)
