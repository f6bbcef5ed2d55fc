"""The Triton extent against float64 numpy: in the interpreter, and on a GPU where there is one."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from spectrum_fast.errors import BackendUnavailableError

from support import operations
from support.interpreter import on_both, on_gpu, outside_the_interpreter

triton_extent = pytest.importorskip("spectrum_fast.measure.ops.extent.triton")

measure = partial(operations.measure, backend="triton")
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)


@outside_the_interpreter
def test_cpu_tensors_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="cuda tensors"):
        measure(torch.zeros(3, 2))


@on_both
@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (129, 257), (3, 70001)])
def test_against_numpy(shape: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    values = weight.to(torch.float64).numpy()
    largest, total = measure(weight.to(device))
    assert largest == np.abs(values).max()
    assert total == pytest.approx(float((values**2).sum()), rel=1e-13)


@on_both
@dtypes
@pytest.mark.parametrize("place", [0, 999])
def test_nan_and_infinity_show(dtype: torch.dtype, place: int, device: str) -> None:
    for bad in (math.nan, -math.nan, math.inf, -math.inf):
        weight = torch.ones(8, 125, dtype=dtype)
        weight.view(-1)[place] = bad
        largest, _ = measure(weight.to(device))
        assert math.isnan(largest) if math.isnan(bad) else largest == math.inf


@on_both
@dtypes
def test_subnormal_numbers_and_views(dtype: torch.dtype, device: str) -> None:
    smallest = torch.finfo(dtype).smallest_normal / 8
    weight = torch.full((40, 6), smallest, dtype=dtype)
    weight[:, 1::2] = 7.0
    largest, total = measure(weight.to(device)[:, ::2].T)
    assert largest == float(weight[0, 0]) > 0
    assert total == pytest.approx(120 * float(weight[0, 0]) ** 2, rel=1e-12)


@on_both
def test_rows_that_lie_apart_are_read_where_they_are(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a band reduction and a rotation ask of Gram matrices: a copy of three wide ones would take 1.6 GB."""
    from spectrum_fast.measure.ops.extent import triton as triton_extent

    monkeypatch.setattr(triton_extent, "STEPS", 1)  # rows longer than what one program takes
    monkeypatch.setattr(triton_extent, "OPTIONS", triton_extent.OPTIONS | {"STEPS": 1})
    batch = torch.randn(2, 9, 4500, generator=torch.Generator().manual_seed(1)).to(device)
    monkeypatch.setattr(torch.Tensor, "contiguous", None)
    for part in (batch[:, 4:, 300:], batch[:, 4:], batch[1:, :, :1]):
        found = triton_extent.measure(part)
        assert torch.equal(found[:, 0], part.abs().amax((1, 2)).double())
        torch.testing.assert_close(found[:, 1], part.double().square().sum((1, 2)), rtol=1e-13, atol=0)


def e4m3(*shape: int) -> torch.Tensor:
    """Random codes, all of them but NaN."""
    bits = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return torch.where((bits & 0x7F) == 0x7F, bits - 1, bits).view(torch.float8_e4m3fn)


@on_both
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 40, 300), (3, 257, 129)])
def test_codes_with_a_scale_a_block(shape: tuple[int, int, int], device: str) -> None:
    codes = e4m3(*shape)
    grid = (shape[0], -(-shape[1] // 128), -(-shape[2] // 128))
    scales = torch.randn(grid, generator=torch.Generator().manual_seed(4)) * 1e-3
    weight = (
        codes.double()
        * scales.double().repeat_interleave(128, 1)[:, : shape[1]].repeat_interleave(128, 2)[:, :, : shape[2]]
    )
    found = triton_extent.measure_block_scaled(codes.view(torch.uint8).to(device), scales.to(device)).cpu()
    assert found.shape == (shape[0], 2)
    assert torch.equal(found[:, 0].float(), weight.abs().amax((1, 2)).float())
    torch.testing.assert_close(found[:, 1], weight.square().sum((1, 2)), rtol=1e-13, atol=0)


@on_both
def test_codes_and_scales_that_are_no_numbers_show(device: str) -> None:
    codes, scales = e4m3(4, 130, 130), torch.ones(4, 2, 2)
    codes.view(torch.uint8)[1, 129, 3] = 0xFF
    scales[2, 0, 1], scales[3, 1, 1] = math.nan, math.inf
    largest = triton_extent.measure_block_scaled(codes.view(torch.uint8).to(device), scales.to(device))[:, 0].tolist()
    assert largest[0] == 448
    assert math.isnan(largest[1])
    assert math.isnan(largest[2])
    assert largest[3] == math.inf


@on_gpu
def test_more_numbers_than_an_integer_of_32_bits_counts(device: str) -> None:
    if torch.cuda.get_device_properties(0).total_memory < 12 << 30:
        pytest.skip("needs 12 GB")
    weight = torch.zeros(1, 2**31 + 70001, dtype=torch.bfloat16, device=device)
    weight[0, -1], weight[0, 2**31 - 1] = -3.0, 2.0
    assert measure(weight) == (3.0, 13.0)
