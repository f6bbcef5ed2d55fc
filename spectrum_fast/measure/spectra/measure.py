"""Facts about the entries of a matrix that every method needs: scale, Frobenius norm, finiteness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.spectra.blockwise import measure_blocks
from spectrum_fast.read.stream import BlockMatrix


@dataclass(frozen=True)
class Extent:
    """Scale of one matrix.

    Attributes:
        max_abs: largest absolute entry; NaN or infinite if the matrix holds such an entry.
        exponent: power of two to divide the matrix by so that squares neither overflow nor vanish; 0 where they are
            safe as they are.
        sum_of_squares: ``||2^-exponent W||_F^2`` in float64.
    """

    max_abs: float
    exponent: int
    sum_of_squares: float

    @property
    def finite(self) -> bool:
        """No NaN and no infinity among the entries."""
        return math.isfinite(self.max_abs)


@overload
def measure_extent(matrix: Tensor) -> tuple[Tensor, Extent]: ...
@overload
def measure_extent(matrix: BlockMatrix) -> tuple[BlockMatrix, Extent]: ...
def measure_extent(matrix: Tensor | BlockMatrix) -> tuple[Tensor | BlockMatrix, Extent]:
    """The matrix, multiplied by an exact power of two if its scale calls for it, and its extent."""
    if isinstance(matrix, BlockMatrix):
        return _measure_blocks(matrix)
    max_abs, total = measure(matrix[None])[0].tolist()
    exponent = scale_exponent(max_abs, matrix.dtype)
    if exponent == 0:
        return matrix, Extent(max_abs, 0, total)
    scaled = scale_by_power_of_two(matrix, -exponent)
    return scaled, Extent(max_abs, exponent, float(measure(scaled[None])[0, 1]))


def _measure_blocks(matrix: BlockMatrix) -> tuple[BlockMatrix, Extent]:
    measured, max_abs, total = measure_blocks(matrix)
    exponent = scale_exponent(max_abs, matrix.dtype)
    if exponent == 0:
        return measured, Extent(max_abs, 0, total)
    scaled = matrix.map(lambda block: scale_by_power_of_two(block, -exponent), matrix.dtype)
    measured, _, total = measure_blocks(scaled)
    return measured, Extent(max_abs, exponent, total)


def scale_exponent(max_abs: float, dtype: torch.dtype) -> int:
    """Power of two to divide a matrix by so that its squares neither overflow nor vanish; 0 where they do not."""
    if dtype == torch.float16 or not math.isfinite(max_abs) or max_abs == 0.0:
        return 0  # squares of float16 are always safe in float32
    exponent = math.frexp(max_abs)[1]
    return 0 if -16 <= exponent <= 16 else exponent - 1  # 2^1024 is no float64


def scale_by_power_of_two(matrix: Tensor, exponent: int) -> Tensor:
    """``2^exponent W`` in the same dtype, exactly wherever the result is a normal number."""
    half = exponent // 2  # two steps, so that neither factor overflows
    return matrix * math.ldexp(1.0, half) * math.ldexp(1.0, exponent - half)
