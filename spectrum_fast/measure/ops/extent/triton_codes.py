"""Extent of FP8 weights from their codes: one program a block of 128 x 128, whose scale enters afterwards.

Codes without their sign order as the numbers do, NaN above all. Squares of codes are exact in float32 and summed in
float64. Floor: one byte a number, 3.4 us for 2048 x 7168 at 4.3 TB/s.
**Not measured on a GPU yet.**
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
from spectrum_fast.measure.ops.gram.triton_codes import to_float16
from spectrum_fast.measure.ops.triton_support import launch_on, require_device

OPTIONS = {"SIDE": SCALE_BLOCK, "ROWS": 32, "num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}


def measure_block_scaled(codes: Tensor, scales: Tensor) -> Tensor:
    """Largest entry and sum of squares of each matrix ``code * scale``, (batch, 2) float64, without a wait.

    Args:
        codes: (batch, m, n) float8_e4m3fn or its bytes, contiguous, on a CUDA device.
        scales: (batch, ceil(m / 128), ceil(n / 128)) float32.

    Returns:
        NaN for the largest entry where a code or a scale is NaN.

    Raises:
        BackendUnavailableError: the codes are not on a CUDA device.
    """
    require_device("codes", codes)
    count, rows, columns = codes.shape
    tops = torch.empty(scales.shape, dtype=torch.uint8, device=codes.device)
    sums = torch.empty(scales.shape, dtype=torch.float64, device=codes.device)
    with launch_on(codes):
        _extent_kernel[(scales.shape[1], scales.shape[2], count)](
            codes.detach().view(torch.uint8), tops, sums, rows, columns, **OPTIONS
        )
    largest = (tops.view(torch.float8_e4m3fn).to(torch.float32) * scales.abs()).amax((1, 2))  # keeps NaN
    squares = (sums * scales.to(torch.float64).square()).sum((1, 2))
    return torch.stack([largest.to(torch.float64), squares], dim=1)


@triton.jit
def _extent_kernel(codes, tops, sums, rows, columns, SIDE: tl.constexpr, ROWS: tl.constexpr):
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
        x = to_float16(code, False).to(tl.float32)
        total += (x * x).to(tl.float64)
    block = (batch * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) + tl.program_id(1)
    tl.store(tops + block, tl.max(tl.max(top, axis=1), axis=0).to(tl.uint8))
    tl.store(sums + block, tl.sum(tl.sum(total, axis=1), axis=0))
