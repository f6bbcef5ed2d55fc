"""Weights that stay in their codes until a kernel wants their numbers: a quarter or an eighth of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode import decode, read_codes
from spectrum_fast.read.formats.codes import Codes, scale_values
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.scaled import read_scaled
from spectrum_fast.read.formats.weight_plan import WeightPlan

SCALE_BLOCK = 128
"""Rows and columns of FP8 codes that share a scale, as DeepSeek writes them."""


@dataclass(frozen=True)
class CodedWeight:
    """A matrix in codes, as two tensors that stack: :class:`Codes` says the same of any layout, with its tables.

    Attributes:
        codes: (m, n) float8_e4m3fn; or MXFP4, (rows, groups, 16) uint8.
        scales: (ceil(m / 128), ceil(n / 128)) float32; or the exponents of MXFP4, (rows, groups) uint8.
    """

    codes: Tensor
    scales: Tensor

    @property
    def is_fp8(self) -> bool:
        """FP8 in blocks of 128 x 128, else MXFP4."""
        return self.codes.dtype == torch.float8_e4m3fn

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        rows, columns = self.codes.shape[:2]
        return rows, columns if self.is_fp8 else 32 * columns

    @property
    def device(self) -> torch.device:
        """Where the codes lie."""
        return self.codes.device

    def decode(self) -> Tensor:
        """The matrix in float32 (FP8) or bfloat16 (MXFP4), as ``ops.decode.decode_weight`` gives."""
        if self.is_fp8:
            return decode(read_scaled(self.codes, self.scales, block=(SCALE_BLOCK, SCALE_BLOCK)))
        return decode(read_mxfp4(self.codes, self.scales))

    def cpu(self) -> CodedWeight:
        """The same on the CPU."""
        return CodedWeight(self.codes.cpu(), self.scales.cpu())


def as_coded(plan: WeightPlan, main: Tensor, companions: Mapping[str, Tensor]) -> CodedWeight | Tensor | None:
    """What was read, as a weight in codes: FP8 e4m3 with a scale for each 128 x 128 block or for all, or MXFP4.

    Numbers where a format gives these instead; None for everything else.

    Raises:
        UnsupportedDtypeError: companions contradict the codes.
    """
    if plan.decoder is None or plan.part is not None:
        return None
    codes = read_codes(plan, main, companions)
    if not isinstance(codes, Codes):
        return codes if isinstance(codes, Tensor) else None
    if codes.is_mxfp4:
        return CodedWeight(main, codes.scale)
    if codes.codes.dtype != torch.float8_e4m3fn or codes.zero is not None:
        return None
    grid = tuple(-(-side // SCALE_BLOCK) for side in codes.shape)
    if codes.block == (SCALE_BLOCK, SCALE_BLOCK):
        return CodedWeight(main, scale_values(codes.scale))
    return CodedWeight(main, scale_values(codes.scale).expand(grid)) if codes.scale.numel() == 1 else None
