"""Four-bit codes to numbers on the GPU, by table, into scratch that the Gram kernels then read.

MXFP4 comes out in bfloat16, exactly, NF4 / FP4 of bitsandbytes in float32: what the other backends give, to the bit.
(FP8 with 128 x 128 blocks needs no scratch: ``ops/gram/triton_codes.py`` takes the codes.) A weight is
read once and written once: with 0.5 bytes in and 2 or 4 bytes out a value, 8192 x 28672 takes at least 0.14 or 0.25 ms
at 4.3 TB/s, 6 to 10 % of the floor of its Gram product. **Not measured on a GPU yet.**
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (kernel bodies are Triton's language, not Python)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrum_fast.measure.ops.decode import reference
from spectrum_fast.measure.ops.triton_support import launch_on, require_device
from spectrum_fast.read.formats.codes import Codes, scale_values

BLOCK_BYTES = 2048
"""Bytes of codes a program decodes: two values each, 16 of them a thread."""
OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def decode(codes: Codes) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.decode.decode`; MXFP4, NF4 and FP4 have kernels, the rest stays in torch."""
    table, width = codes.table, codes.block[1]
    if table is not None and codes.is_mxfp4:
        every = scale_values(torch.arange(256, dtype=torch.uint8, device=table.device)).to(torch.bfloat16)
        return groups_of_32(codes.codes.view(*codes.scale.shape, 16), codes.scale, table, every)
    if table is not None and codes.scale.shape[0] == 1 and not codes.low_first and width % 2 == 0:
        size = codes.shape[0] * codes.shape[1]
        return scaled_nibbles(codes.codes, table, codes.scale, width, size).view(codes.shape)
    return reference.decode(codes)


def groups_of_32(blocks: Tensor, scale: Tensor, table: Tensor, scale_values: Tensor) -> Tensor:
    """MXFP4: blocks [rows, groups, 16] uint8 and scale [rows, groups] uint8 -> bfloat16 [rows, 32 * groups].

    Args:
        blocks: on a CUDA device.
        scale: exponents, bias 127.
        table: the 16 values, bfloat16.
        scale_values: what each of the 256 scale bytes stands for, bfloat16.

    Raises:
        BackendUnavailableError: the codes are not on a CUDA device.
    """
    require_device("blocks", blocks)
    rows, groups, _ = blocks.shape
    out = torch.empty(rows, 32 * groups, dtype=torch.bfloat16, device=blocks.device)
    tables = (table[None, :] * scale_values[:, None]).contiguous()
    count = rows * groups * 16
    with launch_on(out):
        _group_kernel[(triton.cdiv(count, BLOCK_BYTES),)](
            blocks.contiguous(), scale.contiguous(), tables, out, count, BLOCK=BLOCK_BYTES, **OPTIONS
        )
    return out


def scaled_nibbles(codes: Tensor, table: Tensor, maxima: Tensor, width: int, size: int) -> Tensor:
    """``out[i] = table[nibble i] * maxima[i // width]``, high nibble first; flat, float32; ``width`` even.

    Raises:
        BackendUnavailableError: the codes are not on a CUDA device.
    """
    require_device("codes", codes)
    out = torch.empty(size, dtype=torch.float32, device=codes.device)
    flat = codes.contiguous().view(torch.uint8).view(-1)
    with launch_on(out):
        _nibble_kernel[(triton.cdiv(flat.numel(), BLOCK_BYTES),)](
            flat,
            table.to(torch.float32).contiguous(),
            maxima.to(torch.float32).contiguous(),
            out,
            size,
            width // 2,
            BLOCK=BLOCK_BYTES,
            **OPTIONS,
        )
    return out


@triton.jit
def _group_kernel(codes, scales, tables, out, count, BLOCK: tl.constexpr):
    """``count`` bytes in groups of 16; tables[16 * scale + nibble], low nibble first."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    byte = tl.load(codes + place, mask=inside, other=0).to(tl.int32)
    row = tables + tl.load(scales + place // 16, mask=inside, other=0).to(tl.int32) * 16
    low = tl.load(row + (byte & 15), mask=inside, other=0)
    high = tl.load(row + (byte >> 4), mask=inside, other=0)
    both = tl.program_id(0).to(tl.int64) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    tl.store(out + both, tl.interleave(low, high), mask=both // 2 < count)


@triton.jit
def _nibble_kernel(codes, table, maxima, out, size, half_width, BLOCK: tl.constexpr):
    """``size`` values, two a byte, high nibble first; one maximum for ``half_width`` bytes."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = 2 * place < size
    byte = tl.load(codes + place, mask=inside, other=0).to(tl.int32)
    scale = tl.load(maxima + place // half_width, mask=inside, other=0)
    high = tl.load(table + (byte >> 4), mask=inside, other=0) * scale
    low = tl.load(table + (byte & 15), mask=inside, other=0) * scale
    both = tl.program_id(0).to(tl.int64) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    tl.store(out + both, tl.interleave(high, low), mask=both < size)
