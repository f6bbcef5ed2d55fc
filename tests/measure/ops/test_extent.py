"""Largest entry and sum of squares, against float64 numpy; NaN and infinity always show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from support.operations import measure

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
BACKENDS = ["reference", "native"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (129, 257), (2, 16385), (1, 300_007)])
def test_against_numpy(shape: tuple[int, int], dtype: torch.dtype, backend: str) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    values = weight.to(torch.float64).numpy()
    largest, total = measure(weight, backend=backend)
    assert largest == np.abs(values).max()
    assert total == pytest.approx(float((values**2).sum()), rel=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 5, 999])
def test_nan_and_infinity_show(dtype: torch.dtype, place: int, backend: str) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        weight = torch.ones(1, 1000, dtype=dtype)
        weight[0, place] = bad
        largest, _ = measure(weight, backend=backend)
        assert math.isnan(largest) if math.isnan(bad) else largest == math.inf


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_subnormal_numbers_count(dtype: torch.dtype, backend: str) -> None:
    smallest = torch.finfo(dtype).smallest_normal / 8
    weight = torch.full((4, 10), smallest, dtype=dtype)
    largest, total = measure(weight, backend=backend)
    assert largest == float(weight[0, 0]) > 0
    assert total == pytest.approx(40 * float(weight[0, 0]) ** 2, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_are_read_as_they_are(backend: str) -> None:
    weight = torch.arange(24.0).reshape(4, 6)
    assert measure(weight[:, ::2].T, backend=backend) == (22.0, float((weight[:, ::2] ** 2).sum()))
