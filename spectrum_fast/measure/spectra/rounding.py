"""How far rounding may have moved a computed spectrum: what is behind every stated error bound of the band method.

The Gram product is measured on the matrix at hand (:mod:`spectrum_fast.measure.spectra.probes`). The reduction, which
mixes all rows with all others, is modelled in float32: it makes many small, nearly independent rounding errors. As a
matrix they have Frobenius norm of order ``eps ||G||_F``, spread over all directions, so one eigenvalue moves by a
multiple of ``eps ||G||_F / sqrt(n)``, not of ``eps ||G||_2``. The multiples below were measured against float64
(tests/measure/spectra/test_error_bounds.py holds thousands of random matrices of hostile families to the bounds that
follow), Gram product and reduction together. Where an eigenvalue carries a large part of the norm its own relative
rounding adds to that. In float64 the worst case is affordable, and taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.spectra.probes import GramError

POINT = 4.0
"""Error of any one eigenvalue in units of ``eps ||G||_F / sqrt(n)``; measured 0.4 to 2.3 mostly, and up to 4 at the
ends of clusters, which rounding spreads as the eigenvalues of a random matrix of the cluster's size are spread."""
SMALL = 0.02
"""Twice that for eigenvalues far below this part of ``||G||_F / sqrt(n)``: measured up to 6.3 at the ends of clusters
of small ones (900 hostile matrices, n up to 1600), and up to 10 for the smallest eigenvalues of matrices whose rows
differ in scale by e^8, which lie below the floor under which no value is trusted (:data:`FLOOR`)."""
LARGEST = 2.0
"""Relative error of the largest singular value beside that, in eps; measured 1.8 and less. Where a few entries are most
of a long row, its sum of squares rounds down less than those by whose loss the diagonal is corrected."""
MEAN = 1.0
"""Error of a sum over many eigenvalues, per eigenvalue, in the same units; measured 0.4 and less (signs alternate)."""
FLOOR = 4.0
"""Eigenvalues below this many uncertainties of zero in the reduction, and :data:`MEASURED_FLOOR` in the Gram product,
are not told from rounding."""
MEASURED_FLOOR = 1.5
"""That part is a bound, not a model, and sums of values down to it are bounded together."""
OUTLIER = 16.0
"""Relative error, in eps, of an eigenvalue that is all of ``||G||_F``; measured 7 and less."""
ROTATION = 4.0
"""Error of every singular value from rotating the weights, in units of ``eps s_max / sqrt(n)``; measured 1 and less."""
WORST64 = 1.0
"""Error of any eigenvalue from a float64 reduction, in units of ``n eps ||G||_F``; 0.4 is the worst seen, where all
entries are equal and all rounding has one sign (:func:`spectrum_fast.measure.ops.band.reduce_to_band`)."""
LEAST_SCALE = 2.0**-1000
"""Where a matrix is zero outside its outliers, nothing else is left to be beside; more than the square of nothing."""


@dataclass(frozen=True)
class Rounding:
    """Bounds on the rounding of each Gram matrix of a batch and of its reduction. Tensors (m, 1) of float64.

    Attributes:
        gram: error of the Gram product.
        point: error of any one eigenvalue in the reduction.
        mean: error per eigenvalue in a sum over many, there.
        outlier: coefficient of ``eigenvalue^2``, the relative error of eigenvalues that dominate the norm.
        scale: ``||G||_F / sqrt(n)``, beside which an eigenvalue counts as small.
        absolute: error of every singular value that does not come from squaring.
        eps: of the dtype of the Gram matrices.
    """

    gram: GramError
    point: Tensor
    mean: Tensor
    outlier: Tensor
    scale: Tensor
    absolute: Tensor
    eps: float

    def uncertainty(self, t: Tensor, more: Tensor | float = 0.0) -> Tensor:
        """Absolute uncertainty of one computed singular value near each t (m, s), whose eigenvalue is ``more`` off."""
        return self._shift(t, self.gram.spectral + self._reduction(t) + more)

    def eigenvalue_error(self) -> Tensor:
        """Error of any one eigenvalue (m, 1) that is not small."""
        return self.gram.spectral + self.point

    def largest_more(self, t: Tensor) -> Tensor:
        """What the uncertainty of the largest one of each matrix has more, if it is near t."""
        return LARGEST * self.eps * t

    def floor(self) -> Tensor:
        """Below these (m,), no singular value is trusted."""
        least = FLOOR * self._reduction(torch.zeros_like(self.point)) + MEASURED_FLOOR * self.gram.spectral
        return torch.sqrt(least)[:, 0] + self.absolute[:, 0]

    def hiding(self, size: int) -> Tensor:
        """Below these (m, 1) one of ``size`` values may be zero, and any other up to there.

        Of rotated weights that is all that rounding beside the largest value may be: where rows are copies it has one
        sign in all of them, and is not spread (seen: 17 units of :data:`ROTATION` for 26 equal values of 210).
        """
        return self.floor()[:, None] + size**0.5 * self.absolute

    def mean_uncertainty(self, t: Tensor) -> Tensor:
        """Absolute uncertainty per singular value near each t (m, s) of a sum over many, from the reduction."""
        return self._shift(t, self.mean)

    def gram_uncertainty(self, inside: Tensor, t: Tensor) -> Tensor:
        """Absolute uncertainty of sums (m, i) of values, ``inside`` (m, i, s) of them near each t, by the Gram product.

        A value moves by ``|d| / (s + sqrt(s^2 + d))`` where its eigenvalue moves by d, ``|d| <= ||E||_2``; the squares
        of all d sum to no more than ``||E||_F^2``, so by Cauchy and Schwarz the values together move by no more than
        ``||E||_F`` times the root of the sum of those denominators' inverse squares.
        """
        least = t + torch.sqrt((t * t - self.gram.spectral).clamp(min=0))
        inverse = torch.where(least > 0, 1 / least.clamp(min=torch.finfo(torch.float64).tiny), math.inf)
        terms = torch.where(inside > 0, inside * inverse.square()[:, None], 0.0)
        return self.gram.frobenius * torch.sqrt(terms.sum(-1))

    def rise(self, t: Tensor) -> Tensor:
        """How far above t (m, s) the true value can lie where the computed one is t or less."""
        return torch.sqrt(t * t + self.gram.spectral + self._reduction(t)) - t + self.absolute

    def _reduction(self, t: Tensor) -> Tensor:
        """Error of the eigenvalue of one singular value near each t, from the reduction."""
        small = (SMALL * self.scale).clamp(min=LEAST_SCALE)
        return self.point * (1 + small / (small + t * t))

    def _shift(self, t: Tensor, eigenvalue_error: Tensor) -> Tensor:
        """How far ``sqrt(t^2 + e)`` can be from t: worst downwards; below the rounding floor, all of it."""
        squared = t * t
        error = eigenvalue_error + self.outlier * squared * squared
        lowered = squared - error
        upwards = torch.maximum(t, torch.sqrt(squared + error) - t)
        return torch.where(lowered > 0, t - torch.sqrt(lowered.clamp(min=0)), upwards) + self.absolute


def estimate_rounding(
    grams: Tensor, norms: Tensor, gram: GramError, rotated_rank: int = 0, s_max: Tensor | None = None
) -> Rounding:
    """Rounding of Gram and reduction in the dtype of the Gram matrices, to be asked before their reduction.

    Args:
        grams: (m, k, k).
        norms: (m,) their Frobenius norms.
        gram: what is known of their rounding.
        rotated_rank: rows at the top into which outliers were rotated and that lie within the first panel of the
            reduction; they do not touch the rest.
        s_max: (m,) largest singular values, if rotated.
    """
    size = grams.shape[1]
    eps = torch.finfo(grams.dtype).eps
    bulk = frobenius_norms(grams[:, rotated_rank:]) if 0 < rotated_rank < size else norms
    unit = (eps * bulk / size**0.5)[:, None]
    absolute = torch.zeros_like(unit) if s_max is None else (ROTATION * eps * s_max / size**0.5)[:, None]
    point, mean = POINT * unit, MEAN * unit
    if grams.dtype == torch.float64:
        point = mean = torch.maximum(point, WORST64 * size * eps * norms[:, None])
    return Rounding(gram, point, mean, (OUTLIER * eps / norms)[:, None], unit / eps, absolute, eps)


def frobenius_norms(matrices: Tensor) -> Tensor:
    """(m,) of (m, r, c), summed in float64."""
    return torch.sqrt(measure(matrices)[:, 1])
