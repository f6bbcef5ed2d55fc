"""Products with vectors on the GPU: numbers are widened in registers, so that a matrix is read once as it is stored.

One kernel for A and Aᵀ: a program takes 128 numbers of the result, for all vectors, and runs along its part of the sum
with float64 products in the matrix units (sixteen vectors at a time, fewer are filled up). Parts, where there are too
few programs to fill the device, are added in a second step: the same bits in every run.

Cost of an m x n matrix: m n itemsize bytes; floor for 8192 x 28672 bfloat16 at 4.3 TB/s: 0.11 ms. Widened by torch
operations it was 18 bytes a number, 0.98 ms. FP8 weights are multiplied from their codes, a byte a number. **Not
measured on a GPU yet.**
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (kernel bodies are Triton's language, not Python)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrum_fast.measure.ops.decode.triton import SCALE_BLOCK, fp8_codes, to_float16
from spectrum_fast.measure.ops.product import reference
from spectrum_fast.measure.ops.triton_support import launch_on, with_unit_stride

multiply_band = reference.multiply_band
"""A band is a few megabytes."""
RESULTS = 128
"""Numbers of the result that a program takes: one row of scales."""
_PROGRAMS = 264
"""Programs wanted: two for each multiprocessor of an H100 or H200."""
_LEAST_TERMS = 1024
"""Of a part of a sum."""


def multiply(weights: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.product.multiply`."""
    return _multiply(weights.mT if transposed else weights, x, None)


def multiply_block_scaled(codes: Tensor, scales: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """The same for FP8 e4m3 weights from their codes, ``weight = code * scale``, which is exact here.

    Args:
        codes: (m, r, c) bytes (uint8), without NaN codes, on a CUDA device.
        scales: (m, ceil(r / 128), ceil(c / 128)) float32.
        x: as for :func:`multiply`.
        transposed: multiply by the transpose.
    """
    codes = fp8_codes(codes)
    return _multiply(codes.mT, x, scales.mT) if transposed else _multiply(codes, x, scales)


def _multiply(weights: Tensor, x: Tensor, scales: Tensor | None) -> Tensor:
    batch, along_sum, stride = with_unit_stride(weights)
    x = x if x.stride(2) == 1 else x.contiguous()
    matrices, results, terms = batch.shape
    blocks = triton.cdiv(results, RESULTS)
    splits = max(1, min(_PROGRAMS // max(1, blocks * matrices), terms // _LEAST_TERMS))
    parts = torch.empty(splits, matrices, x.shape[1], results, dtype=torch.float64, device=x.device)
    of_scales = (0, 0, 0) if scales is None else scales.stride()
    if parts.numel():
        with launch_on(x):
            _product_kernel[(blocks, splits, matrices)](
                batch, x, parts, parts if scales is None else scales, results, terms, x.shape[1],
                batch.stride(0), stride, x.stride(0), x.stride(1), *of_scales,
                ALONG_SUM=along_sum, SCALED=scales is not None,
                **product_options(batch.dtype, x.shape[1]),
            )  # fmt: skip
    return parts[0] if splits == 1 else parts.sum(0)


def product_options(dtype: torch.dtype, vectors: int) -> dict[str, int | bool]:
    """Compile-time constants and launch options."""
    return {
        "VECTORS": max(16, 1 << (vectors - 1).bit_length()),
        "RESULTS": RESULTS,
        "TERMS": 128 // max(2, dtype.itemsize),
        "num_warps": 8,
        "num_stages": 3,
        "enable_fp_fusion": True,
    }


@triton.jit(do_not_specialize=["vectors", "scale_batch", "scale_row", "scale_term"])
def _product_kernel(
    weight,
    x,
    parts,
    scales,
    results,
    terms,
    vectors,
    weight_batch,
    weight_stride,
    x_batch,
    x_stride,
    scale_batch,
    scale_row,
    scale_term,
    ALONG_SUM: tl.constexpr,
    SCALED: tl.constexpr,
    VECTORS: tl.constexpr,
    RESULTS: tl.constexpr,
    TERMS: tl.constexpr,
):
    """Programs (block of results, part of the sum, matrix): part s takes every splits-th block of TERMS terms.

    weight[i, p] at i * stride + p (ALONG_SUM) or i + p * stride; x (m, vectors, terms); parts (splits, m, vectors,
    results). If SCALED, they are codes, of which a step's have one scale.
    """
    part, splits = tl.program_id(1), tl.num_programs(1)
    batch = tl.program_id(2).to(tl.int64)
    weight += batch * weight_batch
    x += batch * x_batch
    scales += batch * scale_batch + tl.program_id(0) * RESULTS // SCALE_BLOCK * scale_row
    i = tl.program_id(0) * RESULTS + tl.arange(0, RESULTS)
    v = tl.arange(0, VECTORS)
    total = tl.zeros([RESULTS, VECTORS], dtype=tl.float64)
    p = part * TERMS + tl.arange(0, TERMS)
    if ALONG_SUM:
        weight += i.to(tl.int64)[:, None] * weight_stride
        step = 1
    else:
        weight += i[:, None]
        step = weight_stride
    inside = (i < results)[:, None]
    # Loaded a step ahead: beside a load, Triton 3.7 takes a half precision operand for more than float64 units take.
    ahead = tl.load(weight + p.to(tl.int64)[None, :] * step, mask=inside & (p < terms)[None, :], other=0.0)
    for first in range(part * TERMS, terms, splits * TERMS):
        a = ahead
        there = v.to(tl.int64)[None, :] * x_stride + p[:, None]
        b = tl.load(x + there, mask=(v < vectors)[None, :] & (p < terms)[:, None], other=0.0)
        p += splits * TERMS
        ahead = tl.load(weight + p.to(tl.int64)[None, :] * step, mask=inside & (p < terms)[None, :], other=0.0)
        if SCALED:
            a = to_float16(a)
            b *= tl.load(scales + first // SCALE_BLOCK * scale_term).to(tl.float64)
        if a.dtype != tl.float64:  # half precisions by way of float32, the only step that the interpreter knows
            a = a.to(tl.float32)
        total += tl.dot(a.to(tl.float64), b, out_dtype=tl.float64)
    out = parts + ((part * tl.num_programs(2) + batch) * vectors + v[None, :]) * results + i[:, None]
    tl.store(out, total, mask=(i < results)[:, None] & (v < vectors)[None, :])
