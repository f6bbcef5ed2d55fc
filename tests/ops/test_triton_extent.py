"""The Triton extent against float64 numpy: in the interpreter, and on a GPU where there is one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spectrum_fast.errors import BackendUnavailableError

from interpreter import on_both, on_gpu, outside_the_interpreter, run_interpreted

triton_extent = pytest.importorskip("spectrum_fast.ops.extent.triton")

dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)


@outside_the_interpreter
def test_in_the_interpreter() -> None:
    run_interpreted(__file__)


@outside_the_interpreter
def test_cpu_tensors_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="CUDA"):
        triton_extent.measure(torch.zeros(3, 2))


@on_both
@dtypes
@pytest.mark.parametrize("shape", [(1,), (129, 257), (3, 70001)])
def test_against_numpy(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    values = weight.to(torch.float64).numpy()
    largest, total = triton_extent.measure(weight.to(device))
    assert largest == np.abs(values).max()
    assert total == pytest.approx(float((values**2).sum()), rel=1e-13)


@on_both
@dtypes
@pytest.mark.parametrize("place", [0, 999])
def test_nan_and_infinity_show(dtype: torch.dtype, place: int, device: str) -> None:
    for bad in (math.nan, -math.nan, math.inf, -math.inf):
        weight = torch.ones(1000, dtype=dtype)
        weight[place] = bad
        largest, _ = triton_extent.measure(weight.to(device))
        assert math.isnan(largest) if math.isnan(bad) else largest == math.inf


@on_both
@dtypes
def test_subnormal_numbers_and_views(dtype: torch.dtype, device: str) -> None:
    smallest = torch.finfo(dtype).smallest_normal / 8
    weight = torch.full((40, 6), smallest, dtype=dtype)
    weight[:, 1::2] = 7.0
    largest, total = triton_extent.measure(weight.to(device)[:, ::2].T)
    assert largest == float(weight[0, 0]) > 0
    assert total == pytest.approx(120 * float(weight[0, 0]) ** 2, rel=1e-12)


@on_gpu
def test_more_numbers_than_an_integer_of_32_bits_counts(device: str) -> None:
    if torch.cuda.get_device_properties(0).total_memory < 12 << 30:
        pytest.skip("needs 12 GB")
    weight = torch.zeros(2**31 + 70001, dtype=torch.bfloat16, device=device)
    weight[-1], weight[2**31 - 1] = -3.0, 2.0
    assert triton_extent.measure(weight) == (3.0, 13.0)
