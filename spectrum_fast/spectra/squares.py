"""The Gram matrix of a weight: squared singular values as eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.ops.extent import measure
from spectrum_fast.ops.gram import gram
from spectrum_fast.spectra.blockwise import block_gram
from spectrum_fast.stream import BlockMatrix


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


def weight_gram(
    weight: Tensor | BlockMatrix, dtype: torch.dtype, sum_of_squares: float, backend: str = "auto"
) -> Squares:
    """The smaller Gram matrix of ``weight`` in ``dtype``, its diagonal corrected by the known trace.

    Sums of squares round downwards a little in every float32 kernel (one sign throughout, measured 1e-6 relative),
    which would shift the whole spectrum. The trace is known in float64, so the diagonal is scaled to it.
    """
    if isinstance(weight, BlockMatrix):
        matrix = block_gram(weight, dtype, backend)
    else:
        matrix = gram(weight, out_dtype=dtype, backend=backend)
    return correct_trace(matrix, sum_of_squares, backend)


def correct_trace(matrix: Tensor, sum_of_squares: float, backend: str = "auto") -> Squares:
    """A Gram matrix whose diagonal is scaled, in place, to the trace that is known from the weights."""
    diagonal = matrix.diagonal()
    diagonal *= sum_of_squares / float(diagonal.to(torch.float64).sum())
    return Squares(matrix, sum_of_squares, math.sqrt(measure(matrix, backend=backend)[1]))
