"""The Gram matrix of a weight: squared singular values as eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.spectra.blockwise import block_gram, sums_of_squares
from spectrum_fast.read.stream import BlockMatrix


@dataclass(frozen=True)
class Squares:
    """A Gram matrix and the two norms of it that the method needs.

    Attributes:
        matrix: (k, k) symmetric, float32 or float64.
        trace: sum of its eigenvalues, known in float64 from the weights themselves.
        norm: ``||G||_F``.
    """

    matrix: Tensor
    trace: float
    norm: float

    @property
    def spikiness(self) -> float:
        """``k ||G||_F^2 / trace^2``: 1 for a flat spectrum, 2 for a square Gaussian matrix, k if one value is all."""
        return self.matrix.shape[0] * (self.norm / self.trace) ** 2


def weight_gram(weight: Tensor | BlockMatrix, dtype: torch.dtype, sum_of_squares: float) -> Squares:
    """The smaller Gram matrix of ``weight`` in ``dtype``, its diagonal corrected by the known trace.

    Sums of squares round downwards a little in every float32 kernel (one sign throughout, measured 1e-6 relative),
    which would shift the whole spectrum. The trace is known in float64, so the diagonal is scaled to it.
    """
    matrix = block_gram(weight, dtype) if isinstance(weight, BlockMatrix) else gram(weight[None], out_dtype=dtype)[0]
    return correct_trace(matrix, sum_of_squares)


def rotated_gram(rotated: Tensor | BlockMatrix, sum_of_squares: float) -> Squares:
    """The smaller Gram matrix, float32, of a weight whose outliers were gathered in its first rows (or columns).

    Its diagonal is formed by itself, row by row, and summed in float64. The known trace is no help here: rotating
    changes it by the rounding of the outliers, which spread over the diagonal would shift the bulk by several times
    what it is rounded by.

    Args:
        rotated: from :func:`spectrum_fast.measure.spectra.rotation.rotate`.
        sum_of_squares: of the weight before.
    """
    if isinstance(rotated, BlockMatrix):
        diagonal = torch.zeros(min(rotated.shape), dtype=torch.float64, device=rotated.device)
        matrix = block_gram(rotated, torch.float32, diagonal)
    else:
        matrix = gram(rotated[None])[0]
        diagonal = gram_diagonal(rotated)
    matrix.diagonal().copy_(diagonal)
    return Squares(matrix, sum_of_squares, math.sqrt(float(measure(matrix[None])[0, 1])))


def gram_diagonal(weights: Tensor) -> Tensor:
    """Diagonals of the smaller Gram matrices of (m, n) or (batch, m, n) float32, in float64."""
    return sums_of_squares(weights, -1 if weights.shape[-2] <= weights.shape[-1] else -2)


def correct_trace(matrix: Tensor, sum_of_squares: float) -> Squares:
    """A Gram matrix whose diagonal is scaled, in place, to the trace that is known from the weights."""
    diagonal = matrix.diagonal()
    diagonal *= sum_of_squares / float(diagonal.to(torch.float64).sum())
    return Squares(matrix, sum_of_squares, math.sqrt(float(measure(matrix[None])[0, 1])))
