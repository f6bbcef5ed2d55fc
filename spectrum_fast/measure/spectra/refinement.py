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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import turn_back
from spectrum_fast.measure.ops.values import eigenvectors
from spectrum_fast.measure.spectra.arrays import Array, columns, functions_of, in_form_of, steps, tensor_of, to_device
from spectrum_fast.measure.spectra.counts import Slices
from spectrum_fast.measure.spectra.rounding import Rounding

MOST = 16
"""Values that are refined at once at most: where more are in doubt, float64 for all of them costs little more."""
WORTH_REFINING = 64
"""Values in doubt up to which the quartiles are refined; most are decided when the threshold is known better."""
_DOUBLINGS = 7
"""Distances to the neighbours that are told apart: 2 to 2^7 times what rounding may have done."""
_ENOUGH = 2
"""Doublings at which a value is alone enough: a bound falls by as many, and with the square of a residual."""
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
        xp, (isolated, gaps) = functions_of(lo), _isolate(ranks, lo, hi, slices, rounding)
        values, errors = 0.5 * (lo + hi), xp.full_like(lo, math.inf)
        alone = gaps > 0
        if bool(alone.any()):
            values[alone], errors[alone] = self._bounded(isolated[alone], gaps[alone], values[alone])
        return values, errors

    def _bounded(self, eigenvalues: Array, gaps: Array, values: Array) -> tuple[Array, Array]:
        """Singular values and their errors, all (k,), of eigenvalues from which others are so far apart."""
        # A GPU would wait for its own small launches: the band is a hundredth of the matrix.
        y = eigenvectors(self.bands.cpu(), tensor_of(eigenvalues)[None].cpu(), _draw(self.bands.shape[1]))
        turned = turn_back(self.vectors, self.bands.shape[2] - 1, y.to(self.vectors.device))
        xp, x, images = functions_of(gaps), *(in_form_of(gaps, of)[0] for of in (turned, self.image(turned)))
        squared = (x * x).sum(1)
        quotients = (x * images).sum(1) / squared
        residuals = images - quotients[:, None] * x
        residuals = xp.sqrt((residuals * residuals).sum(1) / squared)
        distance, lost = gaps - abs(quotients - eigenvalues), in_form_of(gaps, self.image_error)[0]
        off = (residuals + lost) ** 2 / distance + lost
        found = xp.sqrt(quotients.clip(0.0))
        sure = (distance > off) & (quotients > off)  # not of NaN
        errors = xp.where(sure, found - xp.sqrt((quotients - off).clip(0.0)), math.inf)
        return xp.where(sure, found, values), errors


def _isolate(ranks: Sequence[int], lo: Array, hi: Array, slices: Slices, rounding: Rounding) -> tuple[Array, Array]:
    """Eigenvalues (1, k) of a band, and how far from each no other squared singular value lies; 0 if none is alone.

    Which distances hold none is found by bisection until they are enough, on a device at once: there a count more costs
    nothing.
    """
    xp, low, high = functions_of(lo), lo * lo, hi * hi
    eigenvalues = 0.5 * (low + high)
    moved = rounding.eigenvalue_error + 4 * rounding.own_error(high)
    known = moved + 0.5 * (high - low)
    rank = in_form_of(lo, to_device(ranks, torch.float64, tensor_of(lo).device))[:, None]
    doublings, stride, at_once = xp.zeros_like(lo), _DOUBLINGS + 1, _DOUBLINGS if xp is torch else 1
    while stride > 1:
        stride //= at_once + 1
        tried = doublings[..., None] + stride * steps(at_once, lo)
        reach = known[..., None] * 2.0**tried + moved[..., None]
        below, above = eigenvalues[..., None] - reach, eigenvalues[..., None] + reach
        points = xp.sqrt(columns(below, above).clip(0.0))
        counts = slices.below(points.reshape(1, -1)).reshape(points.shape)
        alone = (counts[..., 0] >= rank) & (below > 0) & (counts[..., 1] <= rank + 1)
        doublings = xp.amax(xp.where(alone, tried, doublings[..., None]), 2)
        if stride > 1 and bool((doublings >= _ENOUGH).all()):
            break
    return eigenvalues, xp.where(doublings > 0, known * 2.0**doublings, 0.0)


@lru_cache(maxsize=8)
def _draw(size: int) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    return torch.randn(size, generator=generator, dtype=torch.float64)
