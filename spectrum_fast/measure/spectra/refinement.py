"""Single values of a float32 band to far below its rounding: those that decide on which side of a threshold others lie.

Where a value lies nearer to the threshold than float32 can tell, a score is in doubt by that value, and so are the
quartiles that place the threshold. A few values in float64 cost a tenth of all of them. An eigenvector y of the band,
by inverse iteration, is nearly one of the Gram matrix when turned back: ``x = Q y``, by the Householder vectors that
the reduction left. With ``rho = x^T W W^T x`` and ``r = ||W W^T x - rho x||`` in float64 for x of unit length, and an
interval (a, b) around rho that holds one squared singular value s^2 and no other (Kato and Temple),

    rho - r^2 / (b - rho)  <=  s^2  <=  rho + r^2 / (rho - a).

r is of the size of the rounding and its square is divided by the distance to the neighbours. That there is one value in
(a, b), and which, is known from counts on the band and how far rounding may have moved its eigenvalues.

Source: Kato, On the upper and lower bounds of eigenvalues, 1949; Parlett, The Symmetric Eigenvalue Problem, ch. 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.arrays import Array, columns, functions_of, in_form_of, steps, tensor_of, to_device
from spectrum_fast.measure.spectra.counts import Slices
from spectrum_fast.measure.spectra.rotation import OutlierBasis
from spectrum_fast.measure.spectra.rounding import Rounding

MOST = 16
"""Values that are refined at once at most: where more are in doubt, float64 for all of them costs little more."""
WORTH_REFINING = 64
"""Values in doubt up to which the quartiles are refined; most are decided when the threshold is known better."""
_DOUBLINGS = 16
"""Distances to the neighbours that are tried: 2 to 2^16 times what rounding may have done."""
_SOLVES = 2
"""Steps of inverse iteration; shifts are known to a hundredth of the distance to the next value and better."""
_SEED = 20406


@dataclass(frozen=True)
class Refinement:
    """What values of one matrix are refined by.

    Attributes:
        vectors: (1, n, n), what the reduction left (``vectors`` of
            :func:`spectrum_fast.measure.ops.band.reduce_to_band`).
        bands: (1, n, b + 1) float64.
        image: gives ``W W^T x`` in float64 in the coordinates of the reduced matrix, (1, p, n) -> (1, p, n).
        image_error: (1, 1) a bound on the spectral norm of its rounding.
    """

    vectors: Tensor
    bands: Tensor
    image: Callable[[Tensor], Tensor]
    image_error: Tensor

    def refine(
        self, ranks: Sequence[int], lo: Array, hi: Array, slices: Slices, rounding: Rounding
    ) -> tuple[Array, Array]:
        """Singular values and bounds on their errors, infinite where a neighbour is too near to tell.

        Args:
            ranks: k of the values, from 0 (smallest).
            lo: (1, k) the value of the band with this rank is no smaller.
            hi: (1, k) and smaller than this.
            slices: counts.
            rounding: bounds how far the band's eigenvalues are from the squared singular values.

        Returns:
            (1, k) and (1, k) float64.
        """
        isolated, gaps = (tensor_of(of) for of in _isolate(ranks, lo, hi, slices, rounding))
        errors, values = torch.full_like(isolated, torch.inf), tensor_of(0.5 * (lo + hi))
        alone = gaps > 0
        if bool(alone.any()):
            values[alone], errors[alone] = self._bounded(isolated[alone], gaps[alone], values[alone])
        return in_form_of(lo, values), in_form_of(lo, errors)

    def _bounded(self, eigenvalues: Tensor, gaps: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Singular values and their errors, all (k,), of eigenvalues from which others are so far apart."""
        # A GPU would wait for its own small launches: the band is a hundredth of the matrix.
        x = self._turn_back(_eigenvectors(self.bands[0].cpu(), eigenvalues.cpu()).to(gaps.device)[None])
        images = self.image(x)
        squared = x.square().sum(2)
        quotients = (x * images).sum(2) / squared
        residuals = torch.linalg.vector_norm(images - quotients[..., None] * x, dim=2) / squared.sqrt()
        distance = gaps - (quotients - eigenvalues).abs()
        off = (residuals + self.image_error).square() / distance + self.image_error
        found = torch.sqrt(quotients.clamp(min=0))
        sure = (distance > off) & (quotients > off)  # not of NaN
        errors = torch.where(sure, found - torch.sqrt((quotients - off).clamp(min=0)), torch.inf)
        return torch.where(sure, found, values)[0], errors[0]

    def _turn_back(self, y: Tensor) -> Tensor:
        """``Q y``, vectors as rows (1, k, n)."""
        b, x, n = self.bands.shape[2] - 1, y.clone(), y.shape[2]
        for column in reversed(range(0, max(n - b - 1, 0), b)):
            begin = column + b
            basis = OutlierBasis.of(self.vectors[:, column:begin, begin:].mT)
            x[:, :, begin:] = basis.turn(x[:, :, begin:], back=True)
        return x


def _isolate(ranks: Sequence[int], lo: Array, hi: Array, slices: Slices, rounding: Rounding) -> tuple[Array, Array]:
    """Eigenvalues (1, k) of a band, and how far from each no other squared singular value lies; 0 if none is alone."""
    xp, low, high = functions_of(lo), lo * lo, hi * hi
    eigenvalues = 0.5 * (low + high)
    moved = rounding.eigenvalue_error + 4 * rounding.own_error(high)
    known = moved + 0.5 * (high - low)
    gaps = known[..., None] * 2.0 ** steps(_DOUBLINGS, lo)
    below, above = eigenvalues[..., None] - gaps - moved[..., None], eigenvalues[..., None] + gaps + moved[..., None]
    points = xp.sqrt(columns(below, above).clip(0.0))
    counts = slices.below(points.reshape(1, -1)).reshape(points.shape)
    rank = in_form_of(lo, to_device(ranks, torch.float64, tensor_of(lo).device))[:, None]
    alone = (counts[..., 0] >= rank) & (below > 0) & (counts[..., 1] <= rank + 1)
    return eigenvalues, xp.amax(xp.where(alone, gaps, 0.0), 2)


def _eigenvectors(band: Tensor, shifts: Tensor) -> Tensor:
    """Eigenvectors (k, n) as rows of a band (n, b + 1) float64, those nearest to each shift, by inverse iteration.

    By elimination of b rows at a time, with pivots inside these alone: what that loses to rounding, residuals show.
    """
    n, width = band.shape
    b, blocks = width - 1, -(-n // (width - 1))
    padded = torch.cat([band, band.new_zeros(blocks * b - n, width)]).view(blocks, b, width)
    padded.view(-1, width)[n:, 0] = -shifts.abs().max() - 1.0  # no eigenvalue near a shift, and joined to nothing
    diagonal, below = band.new_zeros(blocks, b, b), band.new_zeros(blocks, b, b)  # below: rows of the next block
    for d in range(width):
        diagonal.diagonal(-d, 1, 2)[:] = padded[:, : b - d, d]
        if d:
            below.diagonal(b - d, 1, 2)[:] = padded[:, b - d :, d]
    diagonal += diagonal.tril(-1).mT
    shifted = shifts[:, None, None] * torch.eye(b, dtype=band.dtype, device=band.device)
    inverses, carried = [], torch.zeros_like(shifted)
    for block, joined in zip(diagonal, below, strict=True):
        inverses.append(torch.linalg.inv_ex(block - shifted - carried)[0])
        carried = joined @ inverses[-1] @ joined.mT
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    x = torch.randn(len(shifts), blocks, b, 1, generator=generator, dtype=band.dtype).to(band.device)
    x[:, -1, n - blocks * b or b :] = 0.0
    for _ in range(_SOLVES):
        for i in range(1, blocks):
            x[:, i] -= below[i - 1] @ (inverses[i - 1] @ x[:, i - 1])
        x[:, -1] = inverses[-1] @ x[:, -1]
        for i in reversed(range(blocks - 1)):
            x[:, i] = inverses[i] @ (x[:, i] - below[i].mT @ x[:, i + 1])
        x /= torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
    return x.flatten(1)[:, :n]
