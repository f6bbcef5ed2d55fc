"""Rotate outliers out of the way before squaring; nothing is subtracted, so no singular value changes.

Where a few singular values tower over the bulk, the Gram matrix in float32 drowns the bulk in rounding noise of the
outliers. An orthogonal ``H`` whose first k columns span the outliers' singular vectors gathers them in the first k rows
of ``H^T W``; the rest of the Gram is then computed at its own scale. A poor ``H`` changes how much is gained, never the
singular values: ``H`` is orthogonal to rounding whatever it spans.

H is a product of Householder's reflections. LAPACK finds them for one matrix; a GPU's QR would take the matrices of a
batch one after the other, so there they are read off an orthonormal Q: ``Q - [S; 0] = V U`` for the right signs S, V
unit lower trapezoidal, every step shared by the batch. (A block reflector from the polar factor of Q's
first rows needs no elimination, but its rounding reaches the small singular values: twice the error.)

V is kept in float32 and T is made of it in float64, so that H is orthogonal to float64. What comes of ``H^T W`` in
float32 is not: probes measure it together with the Gram matrix (``methods/band.py``), for which
:meth:`OutlierBasis.turn` turns vectors. What gathers the outliers, ``T^T V^T W``, is small beside the matrix and formed
in float64, and so are the first rows: each of them is rounded at its own size and not at that of the largest.

Source: randomized range finder, Halko, Martinsson & Tropp 2011, algorithm 4.4; compact WY form, Schreiber & Van Loan
1989; Householder reconstruction, Ballard et al. 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band.panels import factor_less_signs, triangular_factor
from spectrum_fast.measure.ops.gram import update_gram
from spectrum_fast.measure.ops.product import multiply
from spectrum_fast.measure.spectra.lowrank.basis import orthonormalise

ROTATION_RANK = 32
"""Columns gathered; more than the outlier directions that trained layers show, at a fiftieth of the cost of a Gram."""
_SEED = 20406


@dataclass(frozen=True)
class OutlierBasis:
    """For each Gram matrix an orthogonal ``H = I - V T V^T`` whose first columns span its largest directions.

    Attributes:
        v: (m, k, rank) Householder vectors, unit lower trapezoidal, float32.
        t: (m, rank, rank) upper triangular, float64.
    """

    v: Tensor
    t: Tensor

    @property
    def rank(self) -> int:
        """Directions gathered."""
        return self.v.shape[-1]

    @classmethod
    def of(cls, v: Tensor) -> OutlierBasis:
        """That of these Householder vectors."""
        return cls(v, triangular_factor(v))

    def take(self, places: Sequence[int]) -> OutlierBasis:
        """Of some of the matrices."""
        return self if len(places) == len(self.v) else OutlierBasis(self.v[list(places)], self.t[list(places)])

    @cached_property
    def exact(self) -> Tensor:
        """V in float64."""
        return self.v.to(torch.float64)

    def turn(self, x: Tensor, *, back: bool = False) -> Tensor:
        """``H^T x`` in float64, vectors as rows (m, p, k); ``H x`` if ``back``."""
        return x - x @ self.exact @ (self.t.mT if back else self.t) @ self.exact.mT


@dataclass(frozen=True)
class GramRotation:
    """``H^T G H`` of Gram matrices, as what is added to them: ``G + V Z^T + Z V^T``.

    With ``Y = G V T``, ``Z = V (T^T V^T Y) / 2 - Y``.

    Attributes:
        grams: (m, k, k) float64, or float32 for the traces alone.
        v: (m, k, rank) float64.
        z: (m, k, rank) float64.
    """

    grams: Tensor
    v: Tensor
    z: Tensor

    @classmethod
    def of(cls, grams: Tensor, basis: OutlierBasis) -> GramRotation:
        """By the H of this basis."""
        v = basis.exact
        y = _image(grams, v.to(grams.dtype)).to(torch.float64) @ basis.t
        return cls(grams, v, 0.5 * v @ (basis.t.mT @ (v.mT @ y)) - y)

    def gathered(self) -> Tensor:
        """Traces (m,) of the first rows of ``H^T G H``, those of the outliers."""
        rank = self.v.shape[2]
        before = self.grams.diagonal(dim1=1, dim2=2)[:, :rank].sum(1, dtype=torch.float64)
        return before + 2 * (self.v[:, :rank] * self.z[:, :rank]).sum((1, 2))

    def form(self) -> Tensor:
        """In float64, rounded to float32; DESTROYS G. What rounded the bulk of G at the size of its outliers stays."""
        return update_gram(self.grams, self.v, self.z)


def find_outlier_basis(grams: Tensor, start: Tensor | None = None) -> OutlierBasis:
    """Range of the largest eigenvalues of symmetric matrices (m, k, k), by three randomized block power iterations.

    Args:
        grams: float32 or float64.
        start: (k, rank) in their dtype, columns that span what is known of the ranges: then one iteration.
    """
    if start is None:
        size = grams.shape[-1]
        generator = torch.Generator(device="cpu").manual_seed(_SEED)
        start = torch.randn(size, min(ROTATION_RANK, size), generator=generator, dtype=grams.dtype)
        start = (start.pin_memory() if grams.is_cuda else start).to(grams.device, non_blocking=True)
        for _ in range(2):
            start = _orthonormal(_image(grams, start))
    return _basis_of(_image(grams, start))


def _image(grams: Tensor, x: Tensor) -> Tensor:
    """``G X``, by rows of X, which are read in order; in float64 kernels take two thirds of MKL's time."""
    rows = x.mT.expand(len(grams), -1, -1)
    return (multiply(grams, rows) if grams.dtype == torch.float64 else rows @ grams).mT


def _together(image: Tensor) -> bool:
    """Whether a QR decomposition would take matrices one after the other that a GPU takes together."""
    return image.is_cuda or len(image) > 1


def _orthonormal(image: Tensor) -> Tensor:
    return orthonormalise(image) if _together(image) else torch.linalg.qr(image).Q


def _basis_of(image: Tensor) -> OutlierBasis:
    """H from the image ``G X`` of a basis X."""
    exact = image.to(torch.float64)
    v = _householder(orthonormalise(exact)) if _together(exact) else _householder_by_lapack(exact)
    return OutlierBasis.of(v.to(torch.float32))


def _householder(q: Tensor) -> Tensor:
    """V with ``(I - V T V^T) [I; 0] = Q S`` from orthonormal Q (m, k, rank)."""
    rank = q.shape[-1]
    lower, upper, _ = factor_less_signs(q[:, :rank], rank)
    rest = torch.linalg.solve_triangular(upper, q[:, rank:], upper=True, left=False)
    return torch.cat([lower, rest], dim=1)


def _householder_by_lapack(image: Tensor) -> Tensor:
    """V of the reflections that LAPACK finds, zero where it reflects nothing."""
    reflectors, tau = torch.geqrf(image)
    v = reflectors.tril(-1) + torch.eye(*image.shape[-2:], dtype=image.dtype, device=image.device)
    return torch.where((tau == 0)[:, None], 0.0, v)


def rotate(weights: Tensor, basis: OutlierBasis, from_left: bool | None = None) -> Tensor:
    """``H^T W`` (or ``W H``), in the dtype of the basis; a new tensor.

    Args:
        weights: (m, r, c).
        basis: of the Gram matrices of the weights' short side.
        from_left: which side that is; None for the shorter one, which blocks of a matrix cannot tell.
    """
    weights = weights.to(basis.v.dtype, copy=True)
    left = weights.shape[-2] <= weights.shape[-1] if from_left is None else from_left
    v = basis.exact
    z = basis.t.mT @ multiply(weights, v.mT.contiguous(), transposed=left)
    wide = weights if left else weights.mT
    gathered = wide[:, : basis.rank] - v[:, : basis.rank] @ z
    high = z.to(weights.dtype)
    # Largest last: sums of the others are rounded at their own size, to an eighth of the error.
    small_to_large = torch.cat([high, (z - high).to(weights.dtype)], 1).flip(1)
    twice = torch.cat([basis.v, basis.v], 2).flip(2)
    if left:
        weights.baddbmm_(twice, small_to_large, alpha=-1)
    else:
        weights.baddbmm_(small_to_large.mT, twice.mT, alpha=-1)
    wide[:, : basis.rank] = gathered
    return weights
