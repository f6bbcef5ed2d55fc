"""The Gram product of FP8 weights from their codes: no dequantised copy exists in memory.

FP8 e4m3 codes become float16 exactly on their way to the tensor cores, and every 128 deep block of a sum, whose terms
share the scales of their two operand blocks, is multiplied by those two in float32 and added outside of the tensor
cores (why: ``ops/gram/triton.py``). So the products are exact and the result is that of the exact weight code * scale,
rounded once a block. FP8 tensor core instructions are no way to have it: they keep about 14 bits of a sum.

Cost of an m x n weight, k = min(m, n), K = max(m, n): flops k (k + 1) K as for bfloat16, against three times that for a
weight that was decoded to float32; bytes k K read, a quarter. Instructions in the loop over 128 terms: 267 a warp, 64
of them conversions of two codes each (sm_89 and later; before, codes are shifted into place, 9 instructions each).
**Not measured on a GPU yet.**

Source: DeepSeek-V3 Technical Report, section 3.3.2 (sums of FP8 tensor cores).
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

from spectrum_fast.measure.ops.decode.coded import SCALE_BLOCK
from spectrum_fast.measure.ops.gram.device_tiles import GROUP, store_tile, tile_of, tile_pointers
from spectrum_fast.measure.ops.triton_support import (
    INTERPRETED,
    capability_of,
    launch_on,
    require_device,
    with_unit_stride,
)


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
    launch_gram_block_scaled(bytes_, s, out)
    return out if codes.ndim == 3 else out[0]


def launch_gram_block_scaled(
    codes: Tensor, scales: Tensor, out: Tensor, tile: int = 128, **overrides: int | bool
) -> None:
    """Launch the kernel: codes (count, k, K) uint8, scales (count, k / 128, K / 128), out (count, k, k), both float32.

    ``tile`` is the side of the tiles, a divisor of 128; ``overrides`` replace entries of :func:`block_scaled_options`.
    """
    count, k, depth = codes.shape
    options = block_scaled_options(not INTERPRETED and capability_of(codes) >= 89, tile) | overrides
    codes, along_depth, stride = with_unit_stride(codes)
    if options["CONVERT"]:
        codes = codes.view(torch.float8_e4m3fn)
    tiles = triton.cdiv(k, tile)
    with launch_on(out):
        _block_scaled_kernel[(tiles * (tiles + 1) // 2, count)](
            codes,
            scales,
            out,
            k,
            depth,
            codes.stride(0),
            stride,
            out.stride(0),
            *scales.stride(),
            ALONG_DEPTH=along_depth,
            **options,
        )


def block_scaled_options(convert: bool, tile: int = 128) -> dict[str, int | bool]:
    """Compile-time constants and launch options; ``convert``: by the instruction of sm_89 and later."""
    return {
        "TILE": tile,
        "DEPTH": min(tile, SCALE_BLOCK if convert else 64),
        "GROUP": GROUP,
        "SCALE_BLOCK": SCALE_BLOCK,
        "CONVERT": convert,
        "num_warps": 8,
        "num_stages": 3,
        "enable_fp_fusion": True,
    }


@triton.jit
def to_float16(codes, CONVERT: tl.constexpr):
    """E4m3 (no NaN) as float16, exact, subnormal numbers too.

    From bytes: exponents differ by 8 after the shift into place.
    """
    if CONVERT:
        result = codes.to(tl.float16)
    else:
        wide = codes.to(tl.uint16)
        bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        result = bits.to(tl.float16, bitcast=True) * 256.0
    return result


@triton.jit(do_not_specialize=["scale_batch", "scale_row", "scale_depth"])
def _block_scaled_kernel(
    codes,
    scales,
    out,
    k,
    depth,
    code_batch,
    code_stride,
    out_batch,
    scale_batch,
    scale_row,
    scale_depth,
    ALONG_DEPTH: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    SCALE_BLOCK: tl.constexpr,
    CONVERT: tl.constexpr,
):
    """One TILE x TILE tile, as ``_gram_kernel``; ``codes`` are float8e4nv if CONVERT, else bytes."""
    row_tile, column_tile = tile_of(tl.program_id(0), tl.cdiv(k, TILE), GROUP)
    batch = tl.program_id(1).to(tl.int64)
    codes += batch * code_batch
    scales += batch * scale_batch
    i = row_tile * TILE + tl.arange(0, TILE)
    j = column_tile * TILE + tl.arange(0, TILE)
    p = tl.arange(0, DEPTH)
    left, right, step = tile_pointers(codes, i, j, p, k, code_stride, ALONG_DEPTH, DEPTH)
    left_scales = scales + (row_tile * TILE // SCALE_BLOCK) * scale_row
    right_scales = scales + (column_tile * TILE // SCALE_BLOCK) * scale_row
    total = tl.zeros([TILE, TILE], dtype=tl.float32)
    for q in range(0, depth, DEPTH):
        inside = p < depth - q
        a = tl.load(left, mask=inside[None, :], other=0.0)
        b = tl.load(right, mask=inside[:, None], other=0.0)
        block = q // SCALE_BLOCK * scale_depth
        factor = tl.load(left_scales + block) * tl.load(right_scales + block)
        total += tl.dot(to_float16(a, CONVERT), to_float16(b, CONVERT)) * factor
        left += step
        right += step
    store_tile(out + batch * out_batch, total, i, j, k, False)
