"""The Gram product on the GPU: the lower half by tensor cores, each tile written twice.

``G = W Wᵀ`` (or ``Wᵀ W``) is symmetric, so only the tiles on or below the diagonal are launched, k (k + 1) / 2 entries
instead of k²; a tile is stored once as it is and once transposed, so the result is exactly symmetric. Programs run
through the triangle in groups of tile rows, column by column, so that programs at work at the same time share operand
tiles in the L2.

Precision. Products of two bfloat16 or two float16 numbers are exact in float32. Tensor cores add them to their float32
accumulator 8 or 16 at a time and round towards zero every time, so a long sum shrinks: by 4e-5 of itself over 28672
terms, thirty times the bound that the engine states (emulated, ``tests/measure/ops/test_tensor_core_sums.py``). So
every DEPTH-deep block of a sum starts from zero in the tensor cores and is added outside of them, rounded to nearest:
3e-7 on the diagonal, which the engine scales to the known trace, and 1e-7 beside it, for any length. A float32 operand
is split in registers into ``hi = bf16(w)`` and ``lo = bf16(w - hi)`` and multiplied as ``hi hi + hi lo + lo hi`` (the
part dropped is below 2^-16 of a product, and 2^-18 on average). Float64 is left to ``torch.mm`` (cuBLAS).

FP8 weights are multiplied from their codes; no dequantised copy exists in memory. E4m3 codes become float16 exactly on
their way to the tensor cores, and every 128 deep block of a sum, whose terms share the scales of their two operand
blocks, is multiplied by those two in float32: the result is that of the exact weight code * scale, rounded once a
block. FP8 tensor core instructions are no way to have it: they keep about 14 bits of a sum. Instructions in the loop
over 128 terms: 267 a warp, 64 of them conversions of two codes each (before sm_89 codes are shifted into place, 9
instructions each).

Cost of an m x n weight, k = min(m, n), K = max(m, n): flops k (k + 1) K (three times that for float32 operands);
bytes at least k K itemsize read + 4 k² written; floor at 790 TFLOP/s dense bf16 for 8192 x 28672: 1.93 TFLOP = 2.4 ms,
against 4.9 ms for a full product. **Not measured on a GPU yet**; ``torch.mm(out_dtype=torch.float32)`` is the peer in
time; it keeps one sum in the tensor cores.

Source: M. Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021; H. Ootomo, R. Yokota, Recovering single
precision accuracy from tensor cores, 2022 (sums outside of them); DeepSeek-V3 Technical Report, section 3.3.2 (sums of
FP8 tensor cores).
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false
# (kernel bodies are Triton's language, not Python)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrum_fast.measure.ops.decode.triton import SCALE_BLOCK, fp8_codes, to_float16
from spectrum_fast.measure.ops.gram import reference
from spectrum_fast.measure.ops.gram.device_tiles import GROUP, store_tile, tile_of, tile_pointers
from spectrum_fast.measure.ops.triton_support import INTERPRETED, capability_of, launch_on, with_unit_stride

update_gram = reference.update_gram
"""Of float64 matrices."""


def gram(weights: Tensor, *, out_dtype: torch.dtype = torch.float32, unrounded: bool = False) -> Tensor:
    """``W Wᵀ`` or ``Wᵀ W``, whichever is smaller, see :func:`spectrum_fast.measure.ops.gram.gram`.

    Accuracy: bfloat16 and float16 operands: float32 accumulation of exact products. Float32 operands: 2^-16 |W| |W|ᵀ
    entrywise at worst; rounding errors of random sign make that a few 1e-7 of ``|G|`` in practice (tests). A float64
    result is computed in float64, by ``torch.bmm``.
    """
    if out_dtype == torch.float64:
        return reference.gram(weights, out_dtype=out_dtype, unrounded=unrounded)
    wide = weights if weights.shape[1] <= weights.shape[2] else weights.mT
    count, k, _ = wide.shape
    out = torch.empty(count, k, k, dtype=torch.float32, device=weights.device)
    launch_gram(wide, out)
    return out


def add_gram(blocks: Tensor, out: Tensor, *, unrounded: bool = False) -> None:
    """``out += A Aᵀ``, see :func:`spectrum_fast.measure.ops.gram.add_gram`; the lower half of ``out`` is read."""
    if out.dtype == torch.float64:
        reference.add_gram(blocks, out, unrounded=unrounded)
    else:
        launch_gram(blocks, out, ADD=True)


def gram_block_scaled(codes: Tensor, scales: Tensor) -> Tensor:
    """Gram matrices of FP8 e4m3 weights from their codes, ``weight = code * scale``; exactly symmetric.

    Args:
        codes: (m, r, c) bytes (uint8), without NaN codes, on a CUDA device.
        scales: (m, ceil(r / 128), ceil(c / 128)) float32.
    """
    if codes.shape[1] > codes.shape[2]:
        codes, scales = codes.mT, scales.mT
    count, k, _ = codes.shape
    out = torch.empty(count, k, k, dtype=torch.float32, device=codes.device)
    launch_gram(fp8_codes(codes), out, scales=scales)
    return out


def launch_gram(
    batch: Tensor, out: Tensor, tile: int = 128, scales: Tensor | None = None, **overrides: int | bool
) -> None:
    """Launch the kernel: batch (count, k, K) any strides, out (count, k, k) float32; scales of codes, else None.

    ``ADD=True`` among the overrides adds to ``out``, else it is written.

    ``tile`` is the side of the tiles; tests use small ones, which divide 128. ``overrides`` replace entries of
    :func:`gram_options`, for tuning.
    """
    count, k, depth = batch.shape
    if count == 0:
        return
    options = gram_options(batch.dtype, tile, capability_of(batch)) | overrides
    batch, along_depth, stride = with_unit_stride(batch)
    tiles = triton.cdiv(k, tile)
    of_scales = (0, 0, 0) if scales is None else scales.stride()
    with launch_on(out):
        _gram_kernel[(tiles * (tiles + 1) // 2, count)](
            batch, out if scales is None else scales, out, k, depth,
            batch.stride(0), stride, out.stride(0), *of_scales, 1.0, ALONG_DEPTH=along_depth, **options,
        )  # fmt: skip


def gram_options(dtype: torch.dtype, tile: int = 128, capability: int = 90) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the kernel for operands of ``dtype``.

    A block of the sum is as deep as registers and shared memory allow: after each, every warp adds 64 sums outside of
    the tensor cores, 128 cycles of its scheduler: as long as the tensor cores take for 16 terms in half precision.
    Three stages keep the operands of the next block under way while one is multiplied: with two the loop would begin
    by waiting for its own (192 KiB of shared memory, which an A100 does not have).
    """
    split, scaled = dtype == torch.float32, dtype in (torch.uint8, torch.float8_e4m3fn)
    depths = {torch.uint8: 64, torch.float32: 64 if capability >= 90 else 32}
    return {
        "TILE": tile,
        "DEPTH": min(tile, depths.get(dtype, 128)),
        "GROUP": GROUP,
        "SPLIT": split,
        "SCALED": scaled,
        "WIDEN": INTERPRETED,
        "ADD": False,
        "num_warps": 8,
        "num_stages": 3 if capability >= 90 or scaled else 2,
        "enable_fp_fusion": True,
    }


@triton.jit
def _halves(x, WIDEN: tl.constexpr):
    """X = hi + lo in bfloat16, hi rounded to nearest by bits: a conversion there and back takes eight times as long.

    In the interpreter, which truncates and whose bfloat16 product is wrong, both are rounded by bits and stay float32.
    """
    high = (x.to(tl.uint32, bitcast=True) + 0x8000) & 0xFFFF0000
    low = x - high.to(tl.float32, bitcast=True)
    if WIDEN:
        bits = (low.to(tl.uint32, bitcast=True) + 0x8000) & 0xFFFF0000
        hi = high.to(tl.float32, bitcast=True)
        lo = bits.to(tl.float32, bitcast=True)
    else:
        hi = (high >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
        lo = low.to(tl.bfloat16)
    return hi, lo


@triton.jit(do_not_specialize=["scale_batch", "scale_row", "scale_depth"])
def _gram_kernel(
    weight,
    scales,
    out,
    k,
    depth,
    weight_batch,
    weight_stride,
    out_batch,
    scale_batch,
    scale_row,
    scale_depth,
    one,
    ALONG_DEPTH: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    SPLIT: tl.constexpr,
    SCALED: tl.constexpr,
    WIDEN: tl.constexpr,
    ADD: tl.constexpr,
):
    """One TILE x TILE tile; weight[i, p] at i * stride + p (ALONG_DEPTH) or i + p * stride; if SCALED, codes.

    ``one`` is 1.0, which the compiler cannot know: it would put ``total + dot(a, b)`` back into the tensor cores.
    """
    row_tile, column_tile = tile_of(tl.program_id(0), tl.cdiv(k, TILE), GROUP)
    batch = tl.program_id(1).to(tl.int64)
    weight += batch * weight_batch
    i = row_tile * TILE + tl.arange(0, TILE)
    j = column_tile * TILE + tl.arange(0, TILE)
    p = tl.arange(0, DEPTH)
    left, right, step = tile_pointers(weight, i, j, p, k, weight_stride, ALONG_DEPTH, DEPTH)
    scales += batch * scale_batch
    left_scales = scales + (row_tile * TILE // SCALE_BLOCK) * scale_row
    right_scales = scales + (column_tile * TILE // SCALE_BLOCK) * scale_row
    total = tl.zeros([TILE, TILE], dtype=tl.float32)
    for q in range(0, depth, DEPTH):
        inside = p < depth - q
        a = tl.load(left, mask=inside[None, :], other=0.0)
        b = tl.load(right, mask=inside[:, None], other=0.0)
        factor = one
        if SCALED:
            a = to_float16(a)
            b = to_float16(b)
            block = q // SCALE_BLOCK * scale_depth
            factor = tl.load(left_scales + block) * tl.load(right_scales + block)
        if SPLIT:
            a_hi, a_lo = _halves(a, WIDEN)
            b_hi, b_lo = _halves(b, WIDEN)
            partial = tl.dot(a_lo, b_hi)
            partial = tl.dot(a_hi, b_lo, partial)
            total += tl.dot(a_hi, b_hi, partial) * factor
        else:
            if WIDEN:
                a = a.to(tl.float32)
                b = b.to(tl.float32)
            total += tl.dot(a, b) * factor
        left += step
        right += step
    store_tile(out + batch * out_batch, total, i, j, k, ADD)
