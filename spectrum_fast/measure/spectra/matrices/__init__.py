"""What a batch is made of: matrices of one shape and type, as numbers, in codes, read in blocks, or as factors.

The engine asks all of them the same (:class:`Matrices`): their extent, their Gram matrices, themselves rotated or
scaled, and a matrix with the same singular values for the SVD.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.spectra.matrices.blocks import Blocks
from spectrum_fast.measure.spectra.matrices.coded import Coded
from spectrum_fast.measure.spectra.matrices.dense import Dense
from spectrum_fast.measure.spectra.matrices.factored import Factored
from spectrum_fast.measure.spectra.matrices.matrices import Matrices
from spectrum_fast.read.formats.codes import Codes

__all__ = ["Blocks", "Coded", "Dense", "Factored", "Matrices", "as_matrices"]


def as_matrices(weights: Tensor | BlockMatrix | FactoredMatrix | Sequence[Tensor | Codes]) -> Matrices:
    """A batch of what a caller has: stacked or single matrices, weights in codes, or one matrix in blocks or factors.

    Raises:
        TypeError: some are numbers and some are in codes.
    """
    if isinstance(weights, BlockMatrix):
        return Blocks(weights)
    if isinstance(weights, FactoredMatrix):
        return Factored((), factors=weights)
    if isinstance(weights, Tensor):
        return Dense(weights.detach())
    coded = [weight for weight in weights if isinstance(weight, Codes)]
    plain = [weight.detach() for weight in weights if isinstance(weight, Tensor)]
    if coded and plain:
        raise TypeError(f"weights: expected one kind, found {len(plain)} of numbers and {len(coded)} in codes")
    return Coded(coded) if coded else Dense(plain)
