"""Rotate outliers out of the way before squaring; nothing is subtracted, so no singular value changes.

Where a few singular values tower over the bulk, the Gram matrix in float32 drowns the bulk in rounding noise of the
outliers. An orthogonal ``H`` whose first k columns span the outliers' singular vectors gathers them in the first k rows
of ``H^T W``; the rest of the Gram is then computed at its own scale. A poor ``H`` changes how much is gained, never the
singular values: ``H`` is orthogonal to rounding whatever it spans.

Source: randomized range finder, Halko, Martinsson & Tropp 2011, algorithm 4.4; compact WY form, Schreiber & Van Loan
1989.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from spectrum_fast.stream import BlockMatrix

ROTATION_RANK = 32
"""Columns gathered; more than the outlier directions that trained layers show, at a fiftieth of the cost of a Gram."""
_SEED = 20406


@dataclass(frozen=True)
class OutlierBasis:
    """An orthogonal ``H = I - V T V^T`` whose first ``rank`` columns span the largest directions of a Gram matrix.

    Attributes:
        v: (k, rank) Householder vectors, unit lower trapezoidal, in the dtype of the Gram matrix.
        t: (rank, rank) upper triangular, same dtype.
        largest: estimate of the largest eigenvalue of the Gram matrix (a Ritz value), float64, no dimension.

    For a batch of Gram matrices every tensor has a leading dimension.
    """

    v: Tensor
    t: Tensor
    largest: Tensor

    @property
    def rank(self) -> int:
        """Directions gathered."""
        return self.v.shape[-1]


def find_outlier_basis(gram: Tensor, rank: int = ROTATION_RANK) -> OutlierBasis:
    """Range of the ``rank`` largest eigenvalues of ``gram``, by three randomized block power iterations.

    Args:
        gram: (k, k) or (batch, k, k).
        rank: columns gathered, at most k.
    """
    size = gram.shape[-1]
    rank = min(rank, size)
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    basis = torch.randn(size, rank, generator=generator, dtype=torch.float32).to(gram.device, gram.dtype)
    for _ in range(2):
        basis = torch.linalg.qr(gram @ basis).Q
    image = (gram @ basis).to(torch.float64)
    ritz = torch.linalg.eigvalsh(basis.mT.to(torch.float64) @ image)
    reflectors, tau = torch.geqrf(image)
    v = reflectors.tril(-1) + torch.eye(size, rank, dtype=torch.float64, device=gram.device)
    return OutlierBasis(v.to(gram.dtype), _triangular_factor(v, tau).to(gram.dtype), ritz[..., -1])


def _triangular_factor(v: Tensor, tau: Tensor) -> Tensor:
    """T of the compact WY form, column by column: ``T[:j, j] = -tau_j T[:j, :j] V[:, :j]^T v_j``."""
    t = torch.diag_embed(tau)
    products = v.mT @ v
    for j in range(1, tau.shape[-1]):
        column = t[..., :j, :j] @ products[..., :j, j : j + 1]
        t[..., :j, j] = -tau[..., j : j + 1] * column[..., 0]
    return t


@overload
def rotate(weight: Tensor, basis: OutlierBasis) -> Tensor: ...
@overload
def rotate(weight: BlockMatrix, basis: OutlierBasis) -> BlockMatrix: ...
def rotate(weight: Tensor | BlockMatrix, basis: OutlierBasis) -> Tensor | BlockMatrix:
    """``H^T W`` (or ``W H`` when the columns are the short side), in the dtype of the basis; a new tensor.

    Args:
        weight: (m, n), or (batch, m, n) with a batched basis; one that comes in blocks is rotated as it is read.
        basis: of the Gram matrix of the weight's short side.
    """
    if isinstance(weight, BlockMatrix):
        from_left = not weight.is_tall
        return weight.map(lambda block: _rotate(block, basis, from_left=from_left), basis.v.dtype)
    return _rotate(weight, basis, from_left=weight.shape[-2] <= weight.shape[-1])


def _rotate(weight: Tensor, basis: OutlierBasis, *, from_left: bool) -> Tensor:
    v, t = basis.v, basis.t
    rotated = weight.to(v.dtype, copy=True)
    subtract = rotated.addmm_ if weight.ndim == 2 else rotated.baddbmm_
    if from_left:
        return subtract(v, t.mT @ (v.mT @ rotated), alpha=-1)
    return subtract(rotated @ v @ t, v.mT, alpha=-1)
