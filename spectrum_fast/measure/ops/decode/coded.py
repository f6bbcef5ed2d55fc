"""Weights that stay in their codes until a kernel wants their numbers: a quarter or an eighth of the memory.

They are kept as two tensors, which stack: codes (m, n) in float8_e4m3fn and scales (ceil(m / 128), ceil(n / 128)) in
float32; or, of MXFP4, codes (rows, groups, 16) and exponents (rows, groups), both uint8.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode import read_codes
from spectrum_fast.read.formats.codes import Codes, scale_values
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.scaled import read_scaled
from spectrum_fast.read.formats.weight_plan import WeightPlan

SCALE_BLOCK = 128
"""Rows and columns of FP8 codes that share a scale, as DeepSeek writes them."""


def from_parts(codes: Tensor, scales: Tensor) -> Codes:
    """What two such tensors mean."""
    if codes.dtype == torch.float8_e4m3fn:
        return read_scaled(codes, scales, block=(SCALE_BLOCK, SCALE_BLOCK))
    return read_mxfp4(codes, scales)


def coded_parts(plan: WeightPlan, main: Tensor, companions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """What was read, as two such tensors: FP8 e4m3 with a scale for each 128 x 128 block or for all, or MXFP4.

    None for everything else.

    Raises:
        UnsupportedDtypeError: companions contradict the codes.
    """
    if plan.decoder is None or plan.part is not None:
        return None
    codes = read_codes(plan, main, companions)
    if not isinstance(codes, Codes):
        return None
    if codes.is_mxfp4:
        return main, codes.scale
    if codes.codes.dtype != torch.float8_e4m3fn or codes.zero is not None:
        return None
    if codes.block == (SCALE_BLOCK, SCALE_BLOCK):
        return main, scale_values(codes.scale)
    grid = tuple(-(-side // SCALE_BLOCK) for side in codes.shape)
    return (main, scale_values(codes.scale).expand(grid)) if codes.scale.numel() == 1 else None
