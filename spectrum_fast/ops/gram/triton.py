"""The Gram product on the GPU: the lower half by tensor cores, each tile written twice.

``G = W Wᵀ`` (or ``Wᵀ W``) is symmetric, so only the tiles on or below the diagonal are launched, k (k + 1) / 2 entries
instead of k²; a tile is stored once as it is and once transposed, so the result is exactly symmetric. Programs run
through the triangle in groups of tile rows, column by column, so that programs at work at the same time share operand
tiles in the L2.

Precision. Products of two bfloat16 or two float16 numbers are exact in float32. Tensor cores add them to their float32
accumulator 8 or 16 at a time and round towards zero every time, so a long sum shrinks: by 4e-5 of itself over 28672
terms, thirty times the bound that the engine states (emulated, ``tests/ops/test_tensor_core_sums.py``). So every
DEPTH-deep block of a sum starts from zero in the tensor cores and is added outside of them, rounded to nearest: 1e-7
for any length. A float32 operand is split in registers into ``hi = bf16(w)`` and ``lo = bf16(w - hi)`` and multiplied
as ``hi hi + hi lo + lo hi`` (the part dropped is below 2^-16 of a product, and 2^-18 on average). FP8 e4m3 codes become
float16 exactly (bits shifted into place, times 2^8), each 128-deep block of the sum is multiplied by the scales of its
two operand blocks in float32, and no dequantised copy exists. Float64 is left to ``torch.mm`` (cuBLAS).

Cost of an m x n weight, k = min(m, n), K = max(m, n): flops k (k + 1) K (three times that for float32 operands);
bytes at least k K itemsize read + 4 k² written; floor at 790 TFLOP/s dense bf16 for 8192 x 28672: 1.93 TFLOP = 2.4 ms,
against 4.9 ms for a full product. **Not measured on a GPU yet**; ``torch.mm(out_dtype=torch.float32)`` is the peer in
time; it keeps one sum in the tensor cores.

Source: M. Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021; H. Ootomo, R. Yokota, Recovering single
precision accuracy from tensor cores, 2022 (sums outside of them).
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

from spectrum_fast.ops.triton_support import INTERPRETED, launch_on, require_device

SCALE_BLOCK = 128
"""Rows and columns of a weight that share one scale (DeepSeek-style block-scaled FP8)."""

_GROUP = 8
"""Tile rows that run together: 8 x 16 tiles of 128 keep 132 multiprocessors on about 24 operand tiles."""


def gram(weight: Tensor, *, out_dtype: torch.dtype = torch.float32) -> Tensor:
    """Form ``W Wᵀ`` if m <= n, else ``Wᵀ W``; batched for a 3-D weight.

    Args:
        weight: (m, n) or (batch, m, n), float64, float32, float16 or bfloat16, on a CUDA device; any strides.
        out_dtype: float32, or float64 (then everything is computed in float64, by ``torch.mm``).

    Returns:
        (k, k) or (batch, k, k) in ``out_dtype``, k = min(m, n), contiguous, exactly symmetric in float32.

    Accuracy: bfloat16 and float16 operands: float32 accumulation of exact products. Float32 operands: 2^-16 |W| |W|ᵀ
    entrywise at worst; rounding errors of random sign make that a few 1e-7 of ``|G|`` in practice (tests).

    Raises:
        BackendUnavailableError: the weight is not on a CUDA device.
    """
    require_device("weight", weight)
    w = weight.detach()
    if out_dtype == torch.float64:
        wide = w.to(torch.float64)
        return wide @ wide.mT if wide.shape[-2] <= wide.shape[-1] else wide.mT @ wide
    w = w if w.shape[-2] <= w.shape[-1] else w.mT
    batch = w if w.ndim == 3 else w[None]
    count, k, _ = batch.shape
    out = torch.empty(count, k, k, dtype=torch.float32, device=w.device)
    launch_gram(batch, out)
    return out if w.ndim == 3 else out[0]


def add_gram(block: Tensor, out: Tensor) -> None:
    """``out += A Aᵀ`` for A (k, K), see :func:`spectrum_fast.ops.gram.add_gram`; the lower half of ``out`` is read."""
    require_device("block", block)
    w = block.detach()
    if out.dtype == torch.float64:
        wide = w.to(torch.float64)
        out.addmm_(wide, wide.mT)
        return
    launch_gram(w[None], out[None], ADD=True)


def gram_block_scaled(codes: Tensor, scales: Tensor) -> Tensor:
    """Gram matrix of an FP8 e4m3 weight with one float32 scale for each 128 x 128 block, from the codes themselves.

    Args:
        codes: (m, n) or (batch, m, n), float8_e4m3fn or its bytes (uint8), without NaN codes, on a CUDA device.
        scales: (ceil(m / 128), ceil(n / 128)) float32, with the same batch; weight = code * scale.

    Returns:
        (k, k) or (batch, k, k) float32, k = min(m, n), exactly symmetric: W Wᵀ if m <= n, else Wᵀ W.

    Raises:
        ValueError: scales of another shape.
        BackendUnavailableError: the codes are not on a CUDA device.
    """
    require_device("codes", codes)
    expected = (*codes.shape[:-2], -(-codes.shape[-2] // SCALE_BLOCK), -(-codes.shape[-1] // SCALE_BLOCK))
    if tuple(scales.shape) != expected:
        raise ValueError(
            f"scales: expected shape {expected} for codes {tuple(codes.shape)}, found {tuple(scales.shape)}"
        )
    transposed = codes.shape[-2] > codes.shape[-1]
    bytes_, s = codes.detach().view(torch.uint8), scales.detach().to(torch.float32)
    if transposed:
        bytes_, s = bytes_.mT, s.mT
    if codes.ndim == 2:
        bytes_, s = bytes_[None], s[None]
    count, k, _ = bytes_.shape
    out = torch.empty(count, k, k, dtype=torch.float32, device=codes.device)
    launch_gram(bytes_, out, s)
    return out if codes.ndim == 3 else out[0]


def launch_gram(
    batch: Tensor, out: Tensor, scales: Tensor | None = None, tile: int = 128, **overrides: int | bool
) -> None:
    """Launch the kernel: batch (count, k, K) any strides, out (count, k, k) float32, scales with uint8 codes only.

    ``ADD=True`` among the overrides adds to ``out``, else it is written.

    ``tile`` is the side of the tiles and, with scales, a divisor of 128; tests use small ones. ``overrides`` replace
    entries of :func:`gram_options`, for tuning.
    """
    count, k, depth = batch.shape
    options = gram_options(batch.dtype, tile) | overrides
    tiles = triton.cdiv(k, tile)
    # Unit stride as a constant: the tiles load in whole vectors.
    along_depth = batch.stride(2) == 1
    stride = batch.stride(1) if along_depth else batch.stride(2)
    general = not along_depth and batch.stride(1) != 1
    if general:
        batch, along_depth = batch.contiguous(), True
        stride = batch.stride(1)
    scale_strides = (0, 0, 0) if scales is None else scales.stride()
    with launch_on(out):
        _gram_kernel[(tiles * (tiles + 1) // 2, count)](
            batch,
            batch if scales is None else scales,
            out,
            k,
            depth,
            batch.stride(0),
            stride,
            out.stride(0),
            *scale_strides,
            1.0,
            ALONG_DEPTH=along_depth,
            **options,
        )


def gram_options(dtype: torch.dtype, tile: int = 128) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the kernel for operands of ``dtype`` (uint8: FP8 codes)."""
    split, scaled = dtype == torch.float32, dtype == torch.uint8
    return {
        "TILE": tile,
        "DEPTH": min(tile, 32 if split else 64),
        "GROUP": _GROUP,
        "SPLIT": split,
        "SCALED": scaled,
        "SCALE_BLOCK": SCALE_BLOCK,
        "WIDEN": INTERPRETED,
        "ADD": False,
        "num_warps": 8,
        "num_stages": 3,
        "enable_fp_fusion": True,
    }


@triton.jit
def _triangle_row(index):
    """The row r with r (r + 1) / 2 <= index < (r + 1) (r + 2) / 2: float32 root, corrected in integers."""
    r = ((tl.sqrt(8.0 * index.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    r = tl.where(r * (r + 1) // 2 > index, r - 1, r)
    return tl.where((r + 1) * (r + 2) // 2 <= index, r + 1, r)


@triton.jit
def _tile_of(index, tiles, GROUP: tl.constexpr):
    """(row, column) of the index-th tile on or below the diagonal: GROUP tile rows at a time, column by column."""
    first = _triangle_row(index) // GROUP * GROUP
    rows = tl.minimum(tiles - first, GROUP)
    rest = index - first * (first + 1) // 2
    corner = rest - first * rows
    corner_row = _triangle_row(tl.maximum(corner, 0))
    in_corner = corner >= 0
    row = tl.where(in_corner, first + corner_row, first + rest % rows)
    column = tl.where(in_corner, first + corner - corner_row * (corner_row + 1) // 2, rest // rows)
    return row, column


@triton.jit
def _decode_e4m3(codes):
    """E4m3 bytes (no NaN) as float16, exact, subnormal numbers too: exponents differ by 8 after the shift."""
    wide = codes.to(tl.uint16)
    bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
    return bits.to(tl.float16, bitcast=True) * 256.0


@triton.jit
def _round_to_bfloat16(x, WIDEN: tl.constexpr):
    """Nearest bfloat16, ties to even; in the interpreter, which truncates, by bits and left in float32."""
    if WIDEN:
        bits = x.to(tl.uint32, bitcast=True)
        result = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    else:
        result = x.to(tl.bfloat16)
    return result


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
    SCALE_BLOCK: tl.constexpr,
    WIDEN: tl.constexpr,
    ADD: tl.constexpr,
):
    """One TILE x TILE tile; weight[i, p] at i * stride + p (ALONG_DEPTH) or i + p * stride.

    ``one`` is 1.0, which the compiler cannot know: it would put ``total + dot(a, b)`` back into the tensor cores.
    """
    row_tile, column_tile = _tile_of(tl.program_id(0), tl.cdiv(k, TILE), GROUP)
    batch = tl.program_id(1).to(tl.int64)
    weight += batch * weight_batch
    i = row_tile * TILE + tl.arange(0, TILE)
    j = column_tile * TILE + tl.arange(0, TILE)
    p = tl.arange(0, DEPTH)
    # Rows past the end wrap to valid ones: their products are never stored.
    i_safe = (i % k).to(tl.int64)
    j_safe = (j % k).to(tl.int64)
    if ALONG_DEPTH:
        left = weight + i_safe[:, None] * weight_stride + p[None, :]
        right = weight + j_safe[None, :] * weight_stride + p[:, None]
    else:
        left = weight + i_safe[:, None] + p[None, :].to(tl.int64) * weight_stride
        right = weight + j_safe[None, :] + p[:, None].to(tl.int64) * weight_stride
    step = DEPTH if ALONG_DEPTH else DEPTH * weight_stride.to(tl.int64)
    if SCALED:
        scales += batch * scale_batch
        left_scales = scales + (row_tile * TILE // SCALE_BLOCK) * scale_row
        right_scales = scales + (column_tile * TILE // SCALE_BLOCK) * scale_row

    total = tl.zeros([TILE, TILE], dtype=tl.float32)
    for q in range(0, depth, DEPTH):
        inside = p < depth - q
        a = tl.load(left, mask=inside[None, :], other=0)
        b = tl.load(right, mask=inside[:, None], other=0)
        if SPLIT:
            a_hi = _round_to_bfloat16(a, WIDEN)
            b_hi = _round_to_bfloat16(b, WIDEN)
            a_lo = _round_to_bfloat16(a - a_hi.to(tl.float32), WIDEN)
            b_lo = _round_to_bfloat16(b - b_hi.to(tl.float32), WIDEN)
            partial = tl.dot(a_lo, b_hi)
            partial = tl.dot(a_hi, b_lo, partial)
            total += tl.dot(a_hi, b_hi, partial) * one
        elif SCALED:
            partial = tl.dot(_decode_e4m3(a), _decode_e4m3(b))
            block = q // SCALE_BLOCK * scale_depth
            total += partial * (tl.load(left_scales + block) * tl.load(right_scales + block))
        else:
            if WIDEN:
                a = a.to(tl.float32)
                b = b.to(tl.float32)
            total += tl.dot(a, b) * one
        left += step
        right += step

    out += batch * out_batch
    inside = (i < k)[:, None] & (j < k)[None, :]
    i = i.to(tl.int64)[:, None]
    j = j.to(tl.int64)[None, :]
    if ADD:
        total += tl.load(out + i * k + j, mask=inside & (i >= j), other=0)
    tl.store(out + i * k + j, total, mask=inside & (i >= j))
    tl.store(out + j * k + i, total, mask=inside & (i > j))
