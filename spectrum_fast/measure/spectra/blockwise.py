"""The steps of the engine on a matrix that is never whole in memory.

Every step is one pass over the blocks (:class:`spectrum_fast.read.stream.BlockMatrix`), and every guard of the engine
holds as for a whole matrix: the first pass forms the extent and, on the chance that no scaling is called for, the
float32 Gram matrix with it, so that a tame matrix is read once. Scaling, the rotation of outliers and the float64 Gram
matrix are one more pass each; the singular values come from the triangular factor of a QR decomposition that takes one
block after the other, which costs one more.

Blocks run along the long side: a tall matrix (m >= n) comes in runs of rows, and ``G = sum_b W_b^T W_b``; a wide one in
runs of columns, and ``G = sum_b W_b W_b^T``. A rotation acts on the short side, so it acts on each block alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.ops.gram import add_gram
from spectrum_fast.read.stream import BlockMatrix

_QR_ROWS = 2
"""Rows of one step of the QR decomposition, in multiples of the short side: 4/3 of the flops of a single step."""
_FEW_TERMS = 256
"""Terms of a sum in float32 whose rounding leaves it good to 1e-7."""
_LEAST_QR_ROWS = 1024
"""And no fewer than this, so that a long thin matrix does not take thousands of steps, each with its rounding."""


@dataclass(frozen=True)
class MeasuredBlocks(BlockMatrix):
    """A matrix in blocks that was read once, and what that pass left.

    Attributes:
        gram: its float32 Gram matrix until it is asked for, unless the weights are float64.
    """

    gram: list[Tensor] = field(default_factory=list, repr=False)

    def to(self, dtype: torch.dtype) -> BlockMatrix:
        """The same matrix in another element type; widening to float32 changes nothing that is squared."""
        return self if dtype == torch.float32 and self.dtype != torch.float64 else super().to(dtype)


def measure_blocks(matrix: BlockMatrix) -> tuple[MeasuredBlocks, float, float]:
    """The matrix with its float32 Gram matrix, its largest absolute entry, and its sum of squares in float64."""
    gram = None if matrix.dtype == torch.float64 else _zeros(matrix, torch.float32)
    max_abs, total = 0.0, 0.0
    for block in matrix.blocks():
        largest, squares = measure(block[None])[0].tolist()
        max_abs = max_abs if largest <= max_abs or math.isnan(max_abs) else largest
        total += squares
        if gram is not None:
            add_gram(_along(matrix, block)[None], gram[None])
    found = [] if gram is None else [gram]
    measured = MeasuredBlocks(matrix.shape, matrix.dtype, matrix.device, matrix.open_pass, matrix.count, found)
    return measured, max_abs, total


def block_gram(matrix: BlockMatrix, dtype: torch.dtype, diagonal: Tensor | None = None) -> Tensor:
    """``W W^T`` or ``W^T W``, whichever is smaller, in one pass; in none where an earlier one left it.

    Args:
        matrix: W.
        dtype: of the sums.
        diagonal: (k,) float64; what the diagonal is in float64 is added to it.
    """
    if isinstance(matrix, MeasuredBlocks) and matrix.gram and dtype == torch.float32:
        return matrix.gram.pop()
    gram = _zeros(matrix, dtype)
    for block in matrix.blocks():
        add_gram(_along(matrix, block)[None], gram[None])
        if diagonal is not None:
            diagonal += sums_of_squares(block, -2 if matrix.is_tall else -1)
    return gram


def sums_of_squares(weights: Tensor, dim: int) -> Tensor:
    """Sums along rows (-1) or columns (-2) of (m, n) or (batch, m, n) float32: relative error 1e-7, of either sign.

    Float64 on a GPU; on a CPU sums of 256 in float32, and of these in float64, which reads eight times as fast.
    """
    if weights.is_cuda:
        return torch.linalg.vector_norm(weights, dim=dim, dtype=torch.float64).square()
    if dim == -2:
        squares = [rows.square().sum(-2).to(torch.float64) for rows in weights.split(_FEW_TERMS, dim=-2)]
        return torch.stack(squares).sum(0)
    parts = weights.shape[-1] // _FEW_TERMS
    whole, rest = weights[..., : parts * _FEW_TERMS], weights[..., parts * _FEW_TERMS :]
    norms = torch.linalg.vector_norm(whole.unflatten(-1, (parts, _FEW_TERMS)), dim=-1).to(torch.float64)
    return norms.square().sum(-1) + torch.linalg.vector_norm(rest, dim=-1).to(torch.float64).square()


def triangular_factor(matrix: BlockMatrix, dtype: torch.dtype) -> Tensor:
    """R (k x k, k the short side) of ``W = Q R`` (or ``W^T = Q R``): its singular values are those of W.

    Blocks are appended to the R so far and factored again, so each entry passes through as many Householder
    decompositions as there are blocks; each is backward stable, and their errors are independent (measured: no more
    than that of one decomposition for up to 300 blocks).
    """
    size = min(matrix.shape)
    factor = torch.zeros(0, size, dtype=dtype, device=matrix.device)
    for block in matrix.blocks():
        for rows in _along(matrix, block).T.split(max(_QR_ROWS * size, _LEAST_QR_ROWS)):
            factor = torch.linalg.qr(torch.cat([factor, rows.to(dtype)]), mode="r").R
    return factor


def count_not_finite(matrix: BlockMatrix) -> int:
    """Entries that are NaN or infinite, in one pass."""
    return sum(int((~torch.isfinite(block)).sum()) for block in matrix.blocks())


def _along(matrix: BlockMatrix, block: Tensor) -> Tensor:
    """The block as (k, K): its rows are those of the Gram matrix."""
    return block.T if matrix.is_tall else block


def _zeros(matrix: BlockMatrix, dtype: torch.dtype) -> Tensor:
    return torch.zeros((min(matrix.shape),) * 2, dtype=dtype, device=matrix.device)
