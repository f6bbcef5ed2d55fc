"""Weights that stay in their codes until a kernel wants their numbers: a quarter or an eighth of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode.mxfp4 import decode_mxfp4
from spectrum_fast.measure.ops.decode.scaled import decode_scaled, scale_values
from spectrum_fast.read.checkpoint.weight_plan import WeightPlan

SCALE_BLOCK = 128
"""Rows and columns of FP8 codes that share a scale, as DeepSeek writes them."""


@dataclass(frozen=True)
class CodedWeight:
    """A matrix in codes.

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
    def dtype(self) -> torch.dtype:
        """Of the codes."""
        return self.codes.dtype

    @property
    def device(self) -> torch.device:
        """Where the codes lie."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """Of codes and scales."""
        return self.codes.nbytes + self.scales.nbytes

    def decode(self) -> Tensor:
        """The matrix in float32 (FP8) or bfloat16 (MXFP4), as ``ops.decode.decode_weight`` gives."""
        if self.is_fp8:
            return decode_scaled(self.codes, self.scales, (SCALE_BLOCK, SCALE_BLOCK))
        return decode_mxfp4(self.codes, self.scales)

    def clone(self) -> CodedWeight:
        """A copy in memory of its own."""
        return replace(self, codes=self.codes.clone(), scales=self.scales.clone())

    def cpu(self) -> CodedWeight:
        """The same on the CPU."""
        return replace(self, codes=self.codes.cpu(), scales=self.scales.cpu())


def as_coded(plan: WeightPlan, main: Tensor, companions: Mapping[str, Tensor]) -> CodedWeight | None:
    """What was read, as a weight in codes: FP8 e4m3 with a scale for each 128 x 128 block or for all, or MXFP4.

    None for everything else, and where codes and scales do not fit: ``decode_weight`` then says what is wrong.
    """
    if plan.part is not None or set(companions) != {"scale"}:
        return None
    scale = companions["scale"]
    if plan.decoder == "mxfp4" and main.ndim == 3 and main.shape[2] == 16 and scale.shape == main.shape[:2]:
        return CodedWeight(main, scale)
    if plan.decoder != "scaled" or main.ndim != 2 or main.dtype != torch.float8_e4m3fn:
        return None
    grid = tuple(-(-side // SCALE_BLOCK) for side in main.shape)
    if plan.block == (SCALE_BLOCK, SCALE_BLOCK) and scale.numel() == grid[0] * grid[1]:
        return CodedWeight(main, scale_values(scale).reshape(grid))
    if plan.block in (None, tuple(main.shape)) and scale.numel() == 1:
        return CodedWeight(main, scale_values(scale).reshape(1, 1).expand(grid))
    return None
