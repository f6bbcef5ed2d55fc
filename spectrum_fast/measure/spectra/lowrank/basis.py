"""An orthonormal basis that holds the leading left singular vectors of a batch of matrices.

Block Krylov: the span of ``Y, (W W^T) Y, ..., (W W^T)^q Y`` with ``Y = W Omega`` and Omega Gaussian holds
approximations for which subspace iteration needs about the square of the passes over W (Musco & Musco 2015). Each new
block is orthogonalised against those before it until nothing is lost, so the basis stays orthonormal to rounding
however ill-conditioned the powers are.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORST_PIVOT = 1e-6
"""Smallest ratio of Cholesky pivots (of a Gram matrix in float64, hence conditions up to 1e6) that is trusted; below it
the block goes to Householder QR."""
_PROJECTIONS = 4
"""Steps after which a block counts as orthogonal to those before it; two or three are taken."""


def orthonormalise(block: Tensor) -> Tensor:
    """An orthonormal basis of the columns of each matrix of a batch, by CholeskyQR2 in float64.

    Where Cholesky fails or its pivots say that the columns are nearly dependent, that matrix alone goes to Householder
    QR, which completes the basis with arbitrary directions.

    Args:
        block: (batch, m, k), k <= m, finite.

    Returns:
        (batch, m, k) in the dtype of ``block``, orthonormal to rounding in that dtype.

    Source: CholeskyQR2: Fukaya et al. 2014.
    """
    wide = block.to(torch.float64)
    norms = torch.linalg.vector_norm(wide, dim=-2, keepdim=True)
    wide = wide / torch.where(norms > 0, norms, 1.0)
    basis, failed = wide, torch.zeros(block.shape[0], dtype=torch.bool, device=block.device)
    for _ in range(2):
        factor, info = torch.linalg.cholesky_ex(basis.mT @ basis)
        pivots = factor.diagonal(dim1=-2, dim2=-1)
        failed |= (info != 0) | ~(pivots.amin(-1) > _WORST_PIVOT * pivots.amax(-1))
        basis = torch.linalg.solve_triangular(factor, basis.mT, upper=False).mT
    if bool(failed.any()):
        basis = basis.clone()
        basis[failed] = torch.linalg.qr(wide[failed]).Q
    return basis.to(block.dtype)


def krylov_basis(weight: Tensor, start: Tensor, passes: int, depth: int) -> Tensor:
    """Orthonormal basis of the last ``depth`` blocks of a block Krylov space.

    Args:
        weight: (batch, m, n), float32 or float64.
        start: (batch, n, k) or (1, n, k), ``depth * k <= min(m, n)``.
        passes: applications of ``W W^T`` after the first ``W``.
        depth: blocks kept, at least 1; more passes than ``depth - 1`` begin with subspace iterations.

    Returns:
        (batch, m, depth * k) with orthonormal columns; ``depth`` is at most ``passes + 1``.
    """
    depth = min(depth, passes + 1)
    block = orthonormalise(weight @ start)
    for _ in range(passes + 1 - depth):
        block = orthonormalise(weight @ (block.mT @ weight).mT)
    basis = block
    for _ in range(depth - 1):
        block = _orthonormal_to(basis, weight @ (block.mT @ weight).mT)  # W is read as it lies in memory, both times
        basis = torch.cat((basis, block), dim=-1)
    return _mended(basis)


def _orthonormal_to(basis: Tensor, block: Tensor) -> Tensor:
    """An orthonormal basis of what the columns of ``block`` add to ``basis``.

    Twice is enough where W still adds something. Where it adds nothing, the first step leaves rounding, of which the
    second takes a part away, and only the third is orthogonal: so it goes on until no column loses half of itself.
    """
    for _ in range(_PROJECTIONS):
        left = block - basis @ (basis.mT @ block)
        loses = torch.linalg.vector_norm(left, dim=-2) < 0.5 * torch.linalg.vector_norm(block, dim=-2)
        block = orthonormalise(left)
        if not bool(loses.any()):
            break
    return block


def _mended(basis: Tensor) -> Tensor:
    """The basis itself, but by Householder QR where it is not orthonormal after all (a space that W exhausts)."""
    eye = torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device)
    worst = (basis.mT @ basis - eye).abs().amax((-2, -1))
    bad = ~(worst < 100 * torch.finfo(basis.dtype).eps)
    if bool(bad.any()):
        basis = basis.clone()
        basis[bad] = torch.linalg.qr(basis[bad].to(torch.float64)).Q.to(basis.dtype)
    return basis
