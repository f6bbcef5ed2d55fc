"""Codes to numbers on the GPU: four bits by table, into scratch that the Gram kernels read; FP8 inside of kernels.

MXFP4 comes out in bfloat16, exactly, NF4 / FP4 of bitsandbytes in float32: what the other backends give, to the bit.
FP8 with 128 x 128 blocks needs no scratch: the kernels of extent, Gram product and probes take the codes. A weight is
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

from spectrum_fast.measure.ops.decode import coded, reference
from spectrum_fast.measure.ops.triton_support import INTERPRETED, capability_of, launch_on
from spectrum_fast.read.formats.codes import Codes, scale_values

BLOCK_BYTES = 1024
"""Bytes of codes a program decodes: two values each, 8 of them a thread (16 of them spill on sm_80)."""
OPTIONS = {"BLOCK": BLOCK_BYTES, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
SCALE_BLOCK = tl.constexpr(coded.SCALE_BLOCK)


def decode(codes: Codes) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.decode.decode`; MXFP4, NF4, FP4 have a kernel, the rest stays in torch."""
    table, width = codes.table, codes.block[1]
    is_one_run = codes.scale.shape[0] == 1 and not codes.low_first and width % 2 == 0
    if table is None or not (codes.is_mxfp4 or is_one_run):
        return reference.decode(codes)
    out = torch.empty(codes.shape, dtype=table.dtype, device=table.device)
    stored, scale = codes.codes.contiguous(), scale_values(codes.scale).contiguous()
    with launch_on(out):
        _nibble_kernel[(triton.cdiv(stored.numel(), BLOCK_BYTES),)](
            stored, table.contiguous(), scale, out, out.numel(), width // 2, LOW_FIRST=codes.low_first, **OPTIONS
        )
    return out


def fp8_codes(codes: Tensor) -> Tensor:
    """Bytes of e4m3 codes as kernels take them: as float8 where an instruction converts it (sm_89 and later)."""
    converts = not INTERPRETED and capability_of(codes) >= 89
    return codes.view(torch.float8_e4m3fn if converts else torch.uint8)


@triton.jit
def to_float16(codes):
    """E4m3 (no NaN) as float16, exact, subnormal numbers too.

    From bytes: exponents differ by 8 after the shift into place.
    """
    if codes.dtype == tl.uint8:
        wide = codes.to(tl.uint16)
        bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        result = bits.to(tl.float16, bitcast=True) * 256.0
    else:
        result = codes.to(tl.float16)
    return result


@triton.jit
def _nibble_kernel(codes, table, scales, out, size, half_width, LOW_FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """``size`` values, two a byte: out[i] = table[nibble i] * scale, of which one serves ``half_width`` bytes.

    In float32: where the result is bfloat16, scales are powers of two, and it is exact.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = 2 * place < size
    byte = tl.load(codes + place, mask=inside, other=0).to(tl.int32)
    scale = tl.load(scales + place // half_width, mask=inside, other=0)
    low = tl.load(table + (byte & 15), mask=inside, other=0).to(tl.float32) * scale
    high = tl.load(table + (byte >> 4), mask=inside, other=0).to(tl.float32) * scale
    both = tl.program_id(0).to(tl.int64) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    values = tl.interleave(low, high) if LOW_FIRST else tl.interleave(high, low)
    if out.dtype.element_ty == tl.bfloat16:  # by bits: the interpreter's conversion loses subnormal numbers
        values = (values.to(tl.uint32, bitcast=True) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    tl.store(out + both, values, mask=both < size)
