"""Extent of CUDA tensors in one pass over their bytes; both numbers stay on the device.

The largest entry is found among the bits without the sign, which order as the numbers do, infinity and NaN above all.
Squares are summed in float64. Floor: the bytes of the tensor, 0.11 ms for 8192 x 28672 bfloat16 at 4.3 TB/s; torch
operations, which write every step in float64, move 58 bytes a number, 3.2 ms. **Not measured on a GPU yet.**

FP8 weights are measured from their codes, one program a block of 128 x 128, whose scale enters afterwards. Codes
without their sign order as the numbers do, NaN above all; their squares are exact in float32. Floor: one byte a number.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (kernel bodies are Triton's language, not Python)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrum_fast.measure.ops.decode.coded import SCALE_BLOCK
from spectrum_fast.measure.ops.decode.triton import to_float16
from spectrum_fast.measure.ops.triton_support import launch_on

BLOCK = 2048
"""Numbers of one step of a program, 16 a thread."""
STEPS = 32
OPTIONS = {"BLOCK": BLOCK, "STEPS": STEPS, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
CODE_OPTIONS = {"SIDE": SCALE_BLOCK, "ROWS": 32, "num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
"""By the bytes of a number."""


def measure(weights: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.extent.measure`."""
    runs = _runs(weights.detach())
    count, rows, size = runs.shape
    programs = triton.cdiv(size, BLOCK * STEPS)
    tops = torch.empty(count, rows * programs, dtype=torch.int64, device=runs.device)
    sums = torch.empty(count, rows * programs, dtype=torch.float64, device=runs.device)
    if count:
        with launch_on(runs):
            _extent_kernel[(rows * programs, count)](
                runs, tops, sums, size, programs, runs.stride(0), runs.stride(1), **OPTIONS
            )
    largest = tops.amax(1).to(_BITS[weights.itemsize]).view(weights.dtype).to(torch.float64)
    return torch.stack([largest, sums.sum(1)], dim=1)


def measure_block_scaled(codes: Tensor, scales: Tensor) -> Tensor:
    """Largest entry and sum of squares of each matrix ``code * scale``, (batch, 2) float64, without a wait.

    Args:
        codes: (batch, m, n) bytes (uint8), contiguous, on a CUDA device.
        scales: (batch, ceil(m / 128), ceil(n / 128)) float32.

    Returns:
        NaN for the largest entry where a code or a scale is NaN.
    """
    count, rows, columns = codes.shape
    tops = torch.empty(scales.shape, dtype=torch.uint8, device=codes.device)
    sums = torch.empty(scales.shape, dtype=torch.float64, device=codes.device)
    with launch_on(codes):
        _code_kernel[(*scales.shape[1:], count)](codes, tops, sums, rows, columns, **CODE_OPTIONS)
    largest = (tops.view(torch.float8_e4m3fn).to(torch.float32) * scales.abs()).amax((1, 2))  # keeps NaN
    squares = (sums * scales.to(torch.float64).square()).sum((1, 2))
    return torch.stack([largest.to(torch.float64), squares], dim=1)


def _runs(weights: Tensor) -> Tensor:
    """(m, rows, size) with numbers of a row beside each other: one row a matrix where that is so of all of them."""
    if weights[0].is_contiguous() if len(weights) else True:
        return weights.flatten(1)[:, None]
    return weights if weights.stride(2) == 1 else weights.contiguous()


@triton.jit(do_not_specialize=["programs"])
def _extent_kernel(
    weight, tops, sums, size, programs, matrix_stride, row_stride, BLOCK: tl.constexpr, STEPS: tl.constexpr
):
    """Bits of the largest |w| and sum of w² of BLOCK * STEPS numbers of a row, of which each has ``programs``."""
    pid = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    weight += batch * matrix_stride + (pid // programs).to(tl.int64) * row_stride
    begin = (pid % programs).to(tl.int64) * (BLOCK * STEPS)
    at = tl.arange(0, BLOCK)
    width: tl.constexpr = weight.dtype.element_ty.primitive_bitwidth
    integer: tl.constexpr = tl.int64 if width == 64 else tl.int32 if width == 32 else tl.int16
    top = tl.zeros([BLOCK], dtype=tl.int64 if width == 64 else tl.int32)
    total = tl.zeros([BLOCK], dtype=tl.float64)
    for first in range(begin, tl.minimum(begin + BLOCK * STEPS, size), BLOCK):
        w = tl.load(weight + first + at, mask=first + at < size, other=0.0)
        bits = w.to(integer, bitcast=True).to(top.dtype) & ((1 << (width - 1)) - 1)
        top = tl.maximum(top, bits)
        # Half precisions by way of float32, the only step that the interpreter knows.
        x = w.to(tl.float64) if width == 64 else w.to(tl.float32).to(tl.float64)
        total += x * x
    place = batch * tl.num_programs(0) + pid
    tl.store(tops + place, tl.max(top, axis=0).to(tl.int64))
    tl.store(sums + place, tl.sum(total, axis=0))


@triton.jit
def _code_kernel(codes, tops, sums, rows, columns, SIDE: tl.constexpr, ROWS: tl.constexpr):
    """Largest code without its sign, and the sum of squares, of one block of one matrix."""
    batch = tl.program_id(2).to(tl.int64)
    j = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    top = tl.zeros([ROWS, SIDE], dtype=tl.int32)
    total = tl.zeros([ROWS, SIDE], dtype=tl.float64)
    for first in range(0, SIDE, ROWS):
        i = tl.program_id(0) * SIDE + first + tl.arange(0, ROWS)
        inside = (i < rows)[:, None] & (j < columns)[None, :]
        code = tl.load(codes + (batch * rows + i)[:, None] * columns + j[None, :], mask=inside, other=0)
        top = tl.maximum(top, code.to(tl.int32) & 0x7F)
        x = to_float16(code).to(tl.float32)
        total += (x * x).to(tl.float64)
    block = (batch * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) + tl.program_id(1)
    tl.store(tops + block, tl.max(tl.max(top, axis=1), axis=0).to(tl.uint8))
    tl.store(sums + block, tl.sum(tl.sum(total, axis=1), axis=0))
