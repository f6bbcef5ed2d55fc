"""Rotate outliers out of the way before squaring; nothing is subtracted, so no singular value changes.

Where a few singular values tower over the bulk, the Gram matrix in float32 drowns the bulk in rounding noise of the
outliers. An orthogonal ``H`` whose first k columns span the outliers' singular vectors gathers them in the first k rows
of ``H^T W``; the rest of the Gram is then computed at its own scale. A poor ``H`` changes how much is gained, never the
singular values: ``H`` is orthogonal to rounding whatever it spans.

H is a product of Householder's reflections. LAPACK finds them for one matrix; a GPU's QR would take the matrices of a
batch one after the other, so there they are read off an orthonormal Q: ``Q - [S; 0] = V U`` for the right signs S, V
unit lower trapezoidal, every step shared by the batch. (A block reflector from the polar factor of Q's
first rows needs no elimination, but its rounding reaches the small singular values: twice the error.)

Source: randomized range finder, Halko, Martinsson & Tropp 2011, algorithm 4.4; compact WY form, Schreiber & Van Loan
1989; Householder reconstruction, Ballard et al. 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.lowrank.basis import orthonormalise

ROTATION_RANK = 32
"""Columns gathered; more than the outlier directions that trained layers show, at a fiftieth of the cost of a Gram."""
_SEED = 20406


@dataclass(frozen=True)
class OutlierBasis:
    """For each Gram matrix an orthogonal ``H = I - V T V^T`` whose first columns span its largest directions.

    Attributes:
        v: (m, k, rank) Householder vectors, unit lower trapezoidal, in the dtype of the Gram matrices.
        t: (m, rank, rank) upper triangular, same dtype.
        largest: (m,) estimates of the largest eigenvalues (Ritz values), float64.
    """

    v: Tensor
    t: Tensor
    largest: Tensor

    @property
    def rank(self) -> int:
        """Directions gathered."""
        return self.v.shape[-1]


def find_outlier_basis(grams: Tensor, rank: int = ROTATION_RANK) -> OutlierBasis:
    """Range of the ``rank`` largest eigenvalues of each matrix (m, k, k), by three randomized block power iterations.

    Args:
        grams: symmetric.
        rank: columns gathered, at most k.
    """
    size = grams.shape[-1]
    rank = min(rank, size)
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    start = torch.randn(size, rank, generator=generator, dtype=grams.dtype)
    basis = (start.pin_memory() if grams.is_cuda else start).to(grams.device, non_blocking=True)
    for _ in range(2):
        basis = _orthonormal(grams @ basis)
    return _basis_of(basis, grams @ basis)


def find_outlier_basis_of_weight(weights: Tensor, start: Tensor) -> OutlierBasis:
    """The same without the Gram matrix, by two block power iterations ``W (W^T X)`` (``W^T (W X)`` if W is tall).

    Args:
        weights: (m, r, c) float32.
        start: (m, k, rank) float32, orthonormal columns, k the short side: what is known of the ranges.
    """
    wide = weights if weights.shape[-2] <= weights.shape[-1] else weights.mT
    basis = _orthonormal(wide @ (wide.mT @ start))
    return _basis_of(basis, wide @ (wide.mT @ basis))


def _together(image: Tensor) -> bool:
    """Whether a QR decomposition would take matrices one after the other that a GPU takes together."""
    return image.is_cuda or len(image) > 1


def _orthonormal(image: Tensor) -> Tensor:
    return orthonormalise(image) if _together(image) else torch.linalg.qr(image).Q


def _basis_of(basis: Tensor, image: Tensor) -> OutlierBasis:
    """H from an orthonormal basis X and its image ``G X``."""
    exact = image.to(torch.float64)
    ritz = torch.linalg.eigvalsh(basis.mT.to(torch.float64) @ exact)
    v, t = _householder(orthonormalise(exact)) if _together(exact) else _householder_by_lapack(exact)
    return OutlierBasis(v.to(image.dtype), t.to(image.dtype), ritz[..., -1])


def _householder(q: Tensor) -> tuple[Tensor, Tensor]:
    """V and T with ``(I - V T V^T) [I; 0] = Q S`` from orthonormal Q (m, k, rank): ``T = -U S L^-T``, V_1 = L."""
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


def _householder_by_lapack(image: Tensor) -> tuple[Tensor, Tensor]:
    """V and T of the reflections that LAPACK finds: ``T^-1 = diag(1 / tau) + upper part of V^T V``."""
    reflectors, tau = torch.geqrf(image)
    none = tau == 0  # a reflection of nothing
    v = reflectors.tril(-1) + torch.eye(*image.shape[-2:], dtype=image.dtype, device=image.device)
    v = torch.where(none[:, None], 0.0, v)
    inverse = torch.triu(v.mT @ v, 1) + torch.diag_embed(1 / torch.where(none, 1.0, tau))
    identity = torch.eye(tau.shape[-1], dtype=image.dtype, device=image.device)
    return v, torch.linalg.solve_triangular(inverse, identity, upper=True)


def rotate(weights: Tensor, basis: OutlierBasis, from_left: bool | None = None) -> Tensor:
    """``H^T W`` (or ``W H``), in the dtype of the basis; a new tensor.

    Args:
        weights: (m, r, c).
        basis: of the Gram matrices of the weights' short side.
        from_left: which side that is; None for the shorter one, which blocks of a matrix cannot tell.
    """
    return rotate_in_place(weights.to(basis.v.dtype, copy=True), basis, from_left)


def rotate_in_place(weights: Tensor, basis: OutlierBasis, from_left: bool | None = None) -> Tensor:
    """As :func:`rotate`, in the weights' own memory; they have the dtype of the basis."""
    v, t = basis.v, basis.t
    if weights.shape[-2] <= weights.shape[-1] if from_left is None else from_left:
        return weights.baddbmm_(v, t.mT @ (v.mT @ weights), alpha=-1)
    return weights.baddbmm_(weights @ v @ t, v.mT, alpha=-1)
