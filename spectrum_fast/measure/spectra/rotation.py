"""Rotate outliers out of the way before squaring; nothing is subtracted, so no singular value changes.

Where a few singular values tower over the bulk, the Gram matrix in float32 drowns the bulk in rounding noise of the
outliers. An orthogonal ``H`` whose first k columns span the outliers' singular vectors gathers them in the first k rows
of ``H^T W``; the rest of the Gram is then computed at its own scale. A poor ``H`` changes how much is gained, never the
singular values: ``H`` is orthogonal to rounding whatever it spans.

H is a product of Householder's reflections. LAPACK finds them for one matrix; a GPU's QR would take the matrices of a
batch one after the other, so there they are read off an orthonormal Q: ``Q - [S; 0] = V U`` for the right signs S, V
unit lower trapezoidal, every step shared by the batch. (A block reflector from the polar factor of Q's first rows needs
no elimination, but its rounding reaches the small singular values: twice the error.)

Source: randomized range finder, Halko, Martinsson & Tropp 2011, algorithm 4.4; compact WY form, Schreiber & Van Loan
1989; Householder reconstruction, Ballard et al. 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.lowrank.basis import orthonormalise
from spectrum_fast.read.stream import BlockMatrix

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
    size, batched = gram.shape[-1], gram.ndim == 3
    rank = min(rank, size)
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    start = torch.randn(size, rank, generator=generator, dtype=gram.dtype)
    basis = (start.pin_memory() if gram.is_cuda else start).to(gram.device, non_blocking=True)
    for _ in range(2):
        image = gram @ basis
        basis = orthonormalise(image) if batched else torch.linalg.qr(image).Q
    return _basis_of(basis, gram @ basis)


def find_outlier_basis_of_weight(weight: Tensor, start: Tensor) -> OutlierBasis:
    """The same without the Gram matrix, by two block power iterations ``W (W^T X)`` (``W^T (W X)`` if W is tall).

    Args:
        weight: (m, n) float32.
        start: (k, rank) float32, orthonormal columns, k the short side: what is known of the range.
    """
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
    basis = torch.linalg.qr(wide @ (wide.T @ start)).Q
    return _basis_of(basis, wide @ (wide.T @ basis))


def _basis_of(basis: Tensor, image: Tensor) -> OutlierBasis:
    """H from an orthonormal basis X and its image ``G X``."""
    exact = image.to(torch.float64)
    ritz = torch.linalg.eigvalsh(basis.mT.to(torch.float64) @ exact)
    v, t = _householder(orthonormalise(exact)) if image.ndim == 3 else _householder_of_one(exact)
    return OutlierBasis(v.to(image.dtype), t.to(image.dtype), ritz[..., -1])


def _householder_of_one(image: Tensor) -> tuple[Tensor, Tensor]:
    """V and T of the compact WY form, T column by column: ``T[:j, j] = -tau_j T[:j, :j] V[:, :j]^T v_j``."""
    reflectors, tau = torch.geqrf(image)
    v = reflectors.tril(-1) + torch.eye(*image.shape, dtype=image.dtype, device=image.device)
    t = torch.diag(tau)
    products = v.mT @ v
    for j in range(1, len(tau)):
        t[:j, j] = -tau[j] * (t[:j, :j] @ products[:j, j])
    return v, t


def _householder(q: Tensor) -> tuple[Tensor, Tensor]:
    """V and T with ``(I - V T V^T) [I; 0] = Q S`` from orthonormal Q (batch, k, rank): ``T = -U S L^-T``, V_1 = L."""
    rank = q.shape[-1]
    top, signs = q[:, :rank].clone(), torch.ones_like(q[:, 0])
    for j in range(rank):
        signs[:, j] = torch.where(top[:, j, j] >= 0, -1.0, 1.0)
        top[:, j, j] -= signs[:, j]  # the pivot: 1 at least
        top[:, j + 1 :, j] /= top[:, j, j, None]
        top[:, j + 1 :, j + 1 :] -= top[:, j + 1 :, j, None] * top[:, j, None, j + 1 :]
    upper, lower = top.triu(), top.tril(-1) + torch.eye(rank, dtype=q.dtype, device=q.device)
    rest = torch.linalg.solve_triangular(upper, q[:, rank:], upper=True, left=False)
    t = torch.linalg.solve_triangular(lower.mT, -upper * signs[:, None], upper=True, left=False, unitriangular=True)
    return torch.cat([lower, rest], dim=1), t.triu()


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


def rotate_in_place(weight: Tensor, basis: OutlierBasis) -> Tensor:
    """As :func:`rotate`, in the weight's own memory; it has the dtype of the basis."""
    return _rotate_in_place(weight, basis, from_left=weight.shape[-2] <= weight.shape[-1])


def _rotate(weight: Tensor, basis: OutlierBasis, *, from_left: bool) -> Tensor:
    return _rotate_in_place(weight.to(basis.v.dtype, copy=True), basis, from_left=from_left)


def _rotate_in_place(rotated: Tensor, basis: OutlierBasis, *, from_left: bool) -> Tensor:
    v, t = basis.v, basis.t
    subtract = rotated.addmm_ if rotated.ndim == 2 else rotated.baddbmm_
    if from_left:
        return subtract(v, t.mT @ (v.mT @ rotated), alpha=-1)
    return subtract(rotated @ v @ t, v.mT, alpha=-1)
