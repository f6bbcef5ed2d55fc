"""How far rounding may have moved a computed spectrum: what is behind every stated error bound of the band method.

The spectral norm of the Gram product's error is measured on the matrix at hand, and so is the Frobenius norm of all
that rounds in float32 until the band (:mod:`spectrum_fast.measure.spectra.probes`). Modelled is how the latter is
spread: no eigenvalue moves by more than :data:`CONCENTRATION` times its share, unless the vectors that measure it say
that few directions hold much of it (:data:`spectrum_fast.measure.spectra.probes.UNEVEN`): then all of it is taken to
be in one, which is rigorous, and float64 is asked. They see a direction that holds half of the norm's square, and not
one that holds less and yet more than rounding that is independent has. To measure the spectral norm, vectors would have
to be turned back through the reduction many times, for 7 to 17 % of the time of a matrix; and where some eigenvalues
tower over the rest, nearly all of that norm is the rounding of those, which does not move the others. So eigenvalues
that carry a large part of the norm have a relative error of their own, modelled too. In float64 the worst case is
affordable, and taken.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.spectra.arrays import Array, functions_of, in_form_of, tensor_of
from spectrum_fast.measure.spectra.probes import (
    bound_concentrated,
    bound_frobenius,
    estimate_frobenius,
    residual_products,
)

CONCENTRATION = 3.0
"""Error of any one eigenvalue beside the Gram product's bound, and ``||E||_2`` where that is less, in units of
``||E||_F / sqrt(n)``, E all errors together: for independent rounding ``||E||_2`` is 2 of them. One of them is 2.2 to
3.2 times ``eps ||G||_F / sqrt(n)`` for random and trained matrices, 26 where all entries are equal."""
POINT = 4.0
"""And no less than this in units of ``eps ||G||_F / sqrt(n)``, for matrices so small that few vectors see little."""
LARGEST = 2.0
"""Relative error of the largest singular value beside that, in eps; measured 1.8 and less. Where a few entries are most
of a long row, its sum of squares rounds down less than those by whose loss the diagonal is corrected."""
FLOOR = 4.0
"""Eigenvalues below this many uncertainties of zero in the reduction, and :data:`MEASURED_FLOOR` in the Gram product,
are not told from rounding."""
MEASURED_FLOOR = 1.5
"""That part is a bound, not a model, and sums of values down to it are bounded together."""
TOP_OF_REST = 4.0
"""Largest eigenvalue beside the outliers, in units of the rest's ``||G||_F / sqrt(n)``: 2.8 of a square Gaussian."""
_LEAST_TOWERING = 3.0
"""Least eigenvalue that may be an outlier's, in the same units."""
OUTLIER = 16.0
"""Relative error, in eps, of an eigenvalue that is all of ``||G||_F``, or of an outlier in a row of its own; measured 7
and less."""
WORST64 = 2.0
"""Error of any eigenvalue from a float64 reduction, in units of ``n eps ||G||_F``; 0.8 is the worst seen, where all
entries are equal and all rounding has one sign (:func:`spectrum_fast.measure.ops.band.reduce_to_band`)."""


@dataclass(frozen=True)
class Rounding:
    """Bounds on the rounding of each Gram matrix of a batch and of its reduction. Arrays (m, 1) of float64.

    Attributes:
        gram: spectral norm of the error of the Gram product.
        point: of all other errors.
        frobenius: Frobenius norm of all errors together.
        outlier: coefficient of ``eigenvalue^2``, the relative error of eigenvalues that dominate the norm.
        towering: eigenvalues from here on are of outliers that were rotated into rows of their own. The errors above
            are of the other rows; their own is relative, :data:`OUTLIER` eps.
        scales: a tensor (m, 1) or (m, n), in units of which the rows of each Gram matrix are measured.
        eps: of the dtype of the Gram matrices.
    """

    gram: Array
    point: Array
    frobenius: Array
    outlier: Array
    towering: Array
    scales: Tensor
    eps: float

    @property
    def tensors(self) -> tuple[Array, ...]:
        """All of them, in the order of the attributes."""
        return self.gram, self.point, self.frobenius, self.outlier, self.towering, self.scales

    def on_host(self) -> Rounding:
        """The same with its small numbers as NumPy arrays."""
        *small, scales = self.tensors
        gram, point, frobenius, outlier, towering = (tensor_of(of).cpu().numpy() for of in small)
        return Rounding(gram, point, frobenius, outlier, towering, scales, self.eps)

    def uncertainty(self, t: Array, more: Array | float = 0.0) -> Array:
        """Absolute uncertainty of one computed singular value near each t (m, s), whose eigenvalue is ``more`` off.

        How far ``sqrt(t^2 + e)`` can be from t: worst downwards; below the rounding floor, all of it.
        """
        xp, squared = functions_of(t), t * t
        error = self.eigenvalue_error + more + self.own_error(squared)
        lowered = squared - error
        upwards = xp.maximum(t, xp.sqrt(squared + error) - t)
        return xp.where(lowered > 0, t - xp.sqrt(lowered.clip(0.0)), upwards)

    @cached_property
    def eigenvalue_error(self) -> Array:
        """Error of any one eigenvalue (m, 1)."""
        return self.gram + self.point

    def own_error(self, eigenvalues: Array) -> Array:
        """What the error of eigenvalues (m, s) has more by their size."""
        towers, relative = eigenvalues > self.towering, OUTLIER * self.eps
        return eigenvalues * functions_of(eigenvalues).where(towers, relative, self.outlier * eigenvalues)

    def largest_more(self, t: Array) -> Array:
        """What the uncertainty of the largest one of each matrix has more, if it is near t."""
        return LARGEST * self.eps * t

    @cached_property
    def floor(self) -> Array:
        """Below these (m, 1), no singular value is trusted."""
        return functions_of(self.gram).sqrt(FLOOR * self.point + MEASURED_FLOOR * self.gram)

    def uncertainty_together(self, inside: Array, t: Array) -> Array:
        """Absolute uncertainty of sums (m, i) of values, ``inside`` (m, i, s) of them near each t.

        A value moves by ``|d| / (s + sqrt(s^2 + d))`` where its eigenvalue moves by d; the squares of all d sum to no
        more than ``||E||_F^2``, so by Cauchy and Schwarz the values together move by no more than ``||E||_F`` times the
        root of the sum of those denominators' inverse squares. Each value's own error comes on top.
        """
        xp, tiny, squared = functions_of(t), sys.float_info.min, t * t
        least = t + xp.sqrt((squared - self.eigenvalue_error).clip(0.0))
        inverse = xp.where(least > 0, 1 / least.clip(tiny), math.inf)
        terms = xp.where(inside > 0, inside * (inverse * inverse)[:, None], 0.0)
        own = inside * (0.5 * self.own_error(squared) / t.clip(tiny))[:, None]
        return self.frobenius * xp.sqrt(terms.sum(-1)) + own.sum(-1)

    def rise(self, t: Array) -> Array:
        """How far above t (m, s) the true value can lie where the computed one is t or less."""
        return functions_of(t).sqrt(t * t + self.eigenvalue_error) - t

    def measured(self, bands: Tensor, carried: Tensor) -> Rounding:
        """The same where vectors were carried through the reduction (:mod:`spectrum_fast.measure.spectra.probes`)."""
        products = residual_products(bands, carried, self.scales)
        estimate, concentrated = estimate_frobenius(in_form_of(self.point, products))
        xp, worst = functions_of(estimate), bound_concentrated(estimate)
        typical = CONCENTRATION * estimate / bands.shape[1] ** 0.5
        point = xp.maximum(self.point, xp.where(concentrated, worst, typical))
        frobenius = bound_frobenius(estimate, xp.maximum(self.gram, point))
        return replace(self, point=point, frobenius=xp.where(concentrated, worst, frobenius))


def scales_of(grams: Tensor, rotated_rank: int = 0, rest: Tensor | None = None) -> Tensor:
    """Units (m, 1), all one, or (m, k), in which rounding of the rows of Gram matrices is measured.

    With G11 the rows of outliers, an eigenvector of a smaller eigenvalue of ``[G11 G12; G21 G22]`` has the components
    ``-(G11 - lambda)^-1 G12 b`` there, b those of the other rows. G11 is nearly diagonal, so in row i that is at most
    the norm of what joins it to the rest, over how far its diagonal entry lies above the rest. No more of the rounding
    in that row comes to such an eigenvalue, beside squares of rounding.

    Args:
        grams: (m, k, k).
        rotated_rank: rows at the top into which outliers were rotated and that lie within the first panel of the
            reduction, which leaves them as they are; fewer than k.
        rest: (m,) Frobenius norms of the others.
    """
    scales = torch.ones(len(grams), grams.shape[1] if rotated_rank else 1, dtype=torch.float64, device=grams.device)
    if rest is not None:
        entries = grams.diagonal(dim1=1, dim2=2)[:, :rotated_rank].to(torch.float64)
        above = entries - TOP_OF_REST * (rest / grams.shape[1] ** 0.5)[:, None]
        joins = torch.linalg.vector_norm(grams[:, :rotated_rank, rotated_rank:], dim=2, dtype=torch.float64)
        scales[:, :rotated_rank] = torch.where(above > joins, joins / above, 1.0)
    return scales


def estimate_rounding(grams: Tensor, norms: Array, gram: Array, scales: Tensor, rest: Tensor | None = None) -> Rounding:
    """Rounding of Gram and reduction in the dtype of the Gram matrices, to be asked before their reduction.

    Args:
        grams: (m, k, k).
        norms: (m,) their Frobenius norms.
        gram: what is known of their rounding.
        scales: of their rows, see :func:`scales_of`.
        rest: (m,) Frobenius norms without the rows of outliers, where there are such.
    """
    xp, size, eps = functions_of(norms), grams.shape[1], torch.finfo(grams.dtype).eps
    norms = norms[:, None]
    others = norms if rest is None else in_form_of(norms, rest)[:, None]
    unit = others / size**0.5
    point = POINT * eps * unit
    if grams.dtype == torch.float64:
        point = xp.maximum(point, WORST64 * size * eps * norms)
    frobenius = gram + size**0.5 * point
    towering = xp.full_like(norms, math.inf) if rest is None else _LEAST_TOWERING * unit
    return Rounding(gram, point, frobenius, OUTLIER * eps / norms, towering, scales, eps)


def frobenius_norms(matrices: Tensor) -> Tensor:
    """(m,) of (m, r, c), summed in float64."""
    return torch.sqrt(measure(matrices)[:, 1])
