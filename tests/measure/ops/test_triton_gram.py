"""The Triton Gram kernels against float64: in the interpreter anywhere, and on a GPU where there is one.

The interpreter is chosen when triton is imported: ``test_in_the_interpreter.py`` has a process of its own for it.
In it, half-precision operands are widened before a product: its own bfloat16 product is wrong.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError

from support import operations
from support.interpreter import on_both, on_gpu, outside_the_interpreter

triton_gram = pytest.importorskip("spectrum_fast.measure.ops.gram.triton")

gram = partial(operations.gram, backend="triton")
add_gram = partial(operations.add_gram, backend="triton")
gram_of_batch = triton_gram.gram

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@outside_the_interpreter
def test_cpu_tensors_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="cuda tensors"):
        gram(torch.zeros(3, 2))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def check(found: Tensor, weight: Tensor, dtype: torch.dtype) -> None:
    """Entrywise against float64: float32 sums of exact products; three bfloat16 products for float32 operands."""
    wide = weight.cpu().double()
    wide = wide if wide.shape[-2] <= wide.shape[-1] else wide.mT
    truth = wide @ wide.mT
    bound = wide.abs() @ wide.abs().mT
    unit = 2.0**-16 if dtype == torch.float32 else 2.0**-24 * (4 + wide.shape[-1] ** 0.5)
    assert found.dtype == torch.float32
    assert found.shape == truth.shape
    assert found.is_contiguous()
    assert torch.equal(found, found.mT)
    found = found.cpu().double()
    assert ((found - truth).abs() <= unit * bound).all(), ((found - truth).abs() / bound).max()
    # What the score sees: the whole matrix, where rounding errors of random sign average out.
    assert torch.linalg.norm(found - truth) <= (4e-6 if truth.numel() > 100 else 2.0**-16) * torch.linalg.norm(truth)


@on_both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 40), (40, 1), (17, 33), (33, 17), (70, 130), (130, 50)])
def test_any_shape(m: int, n: int, dtype: torch.dtype, device: str) -> None:
    weight = random(m, n, dtype=dtype).to(device)
    check(gram(weight), weight, dtype)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_long_side_does_not_shrink(dtype: torch.dtype, device: str) -> None:
    """Sums of 28672 terms; ``torch.mm`` keeps them in the tensor cores, which cost it 4e-5 in emulation."""
    weight = 0.02 * torch.randn(512, 28672, device=device, generator=torch.Generator(device).manual_seed(1))
    weight = weight.to(dtype)
    truth = weight.double() @ weight.double().T
    found = gram(weight).double()
    assert torch.linalg.norm(found - truth) < (4e-6 if dtype == torch.float32 else 5e-7) * torch.linalg.norm(truth)
    missing = 1 - found.diagonal().sum() / truth.diagonal().sum()
    assert missing.abs() < (4e-6 if dtype == torch.float32 else 3e-7)


@on_both
@pytest.mark.parametrize("k", [16, 40, 130, 290])
def test_every_tile_of_the_triangle_is_written_once(k: int, device: str) -> None:
    weight = random(k, 19).to(device)
    padded = torch.full((k + 1, k), torch.nan, device=device)
    out = padded[:k]
    triton_gram.launch_gram(weight[None], out[None], tile=16)
    truth = weight.double() @ weight.double().T
    assert torch.equal(out, out.T)
    assert ((out - truth).abs() <= 2.0**-16 * (weight.double().abs() @ weight.double().abs().T)).all()
    assert torch.isnan(padded[k]).all()


@on_both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_batches_and_strides(dtype: torch.dtype, device: str) -> None:
    batch = random(3, 20, 37, dtype=dtype).to(device)
    check(gram_of_batch(batch), batch, dtype)
    check(gram_of_batch(batch.mT), batch.mT, dtype)
    parent = random(50, 80, dtype=dtype).to(device)
    for view in (parent[:20, 3:], parent[3:, :20], parent[::2, ::2], parent.T[5:, 1:30]):
        check(gram(view), view, dtype)


@on_both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (33, 90), (90, 33), (130, 70)])
def test_blocks_add_up_to_the_whole(m: int, n: int, dtype: torch.dtype, device: str) -> None:
    weight = random(m, n, dtype=dtype).to(device)
    wide = weight if m <= n else weight.T
    out = torch.zeros(wide.shape[0], wide.shape[0], device=device)
    for block in wide.split(max(1, wide.shape[1] // 2), dim=1):
        add_gram(block, out)
    check(out, weight, dtype)
    wide_out = torch.ones(wide.shape[0], wide.shape[0], dtype=torch.float64, device=device)
    add_gram(wide, wide_out)
    torch.testing.assert_close(wide_out, wide.double() @ wide.double().T + 1, rtol=1e-14, atol=1e-12)


@on_both
def test_float64_goes_through_torch(device: str) -> None:
    weight = random(9, 5, dtype=torch.float64).to(device)
    found = gram(weight, out_dtype=torch.float64)
    torch.testing.assert_close(found, weight.T @ weight, rtol=1e-14, atol=1e-14)


@on_both
def test_float32_operands_keep_float32_accuracy(device: str) -> None:
    # A single bfloat16 product would miss by 1e-3; two would miss the low parts of one side, 1e-3 too.
    weight = random(24, 256, seed=5).to(device)
    wide = weight.cpu().double()
    truth = wide @ wide.T
    error = torch.linalg.norm(gram(weight).cpu().double() - truth) / torch.linalg.norm(truth)
    assert error < 3e-6


def gram_of_codes(codes: Tensor, scales: Tensor) -> Tensor:
    return triton_gram.gram_block_scaled(codes.view(torch.uint8)[None], scales[None])[0]


@on_both
def test_every_e4m3_code_is_decoded(device: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    codes = codes[(codes & 0x7F) != 0x7F][None]  # no NaN
    found = gram_of_codes(codes.to(device), torch.ones(1, 2, device=device))
    values = codes.view(torch.float8_e4m3fn).double()
    torch.testing.assert_close(found.cpu().double(), values @ values.T, rtol=1e-6, atol=0)
    # One code a row, times one: the decoded value itself.
    pair = torch.cat([codes.T, torch.full_like(codes.T, 0x38)], dim=1).T.contiguous()  # 0x38 is 1.0
    found = gram_of_codes(torch.cat([pair, pair.new_zeros(2, 254)], 1).to(device), torch.ones(1, 4).to(device))
    torch.testing.assert_close(found[0, 1].cpu().double(), values.sum(), rtol=1e-6, atol=1e-3)


@on_both
@pytest.mark.parametrize(("m", "n"), [(100, 300), (300, 140), (129, 257)])
def test_block_scaled(m: int, n: int, device: str) -> None:
    codes = (random(m, n) * 50).to(torch.float8_e4m3fn)
    scales = random(-(-m // 128), -(-n // 128)).abs() * 1e-3 + 1e-5
    weight = codes.float() * scales.repeat_interleave(128, 0)[:m].repeat_interleave(128, 1)[:, :n]
    found = gram_of_codes(codes.to(device), scales.to(device))
    check(
        found,
        codes.double() * scales.double().repeat_interleave(128, 0)[:m].repeat_interleave(128, 1)[:, :n],
        torch.bfloat16,
    )
    assert torch.isfinite(weight).all()
    batched = triton_gram.gram_block_scaled(
        torch.stack([codes.view(torch.uint8)] * 2).to(device), scales[None].expand(2, -1, -1).to(device)
    )
    assert torch.equal(batched[0], found)
    assert torch.equal(batched[1], found)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "n"), [(1024, 4096), (4096, 1000), (2048, 7168), (1111, 3333)])
def test_large(m: int, n: int, dtype: torch.dtype, device: str) -> None:
    weight = random(m, n, dtype=dtype).to(device)
    check(gram(weight), weight, dtype)
