"""How far rounding has moved a matrix on its way to a band, measured on the matrix at hand.

``E = G - W W^T``, G as computed, is multiplied with random vectors in float64: ``E x = G x - W (W^T x)``. Rounding
that is not independent (equal products that all round one way, rows that are nearly copies) shows there as what it is,
where a model of independent rounding knows nothing of it. Some of the vectors go on: they are carried through the
reduction, and ``Q^T (W W^T x) - B (Q^T x)`` is what all of it has done.
With X of p Gaussian vectors and chi-squared variables of p degrees of freedom:

- ``||M X||_2^2 >= ||M||_2^2 chi2_p`` for any M. With ``M = E^q`` the slack enters by its q-th root:
  ``||E||_2 <= (||E^q X||_2 / sqrt(theta))^(1/q)``, theta the quantile of chi2_p at :data:`MISSES`.
- ``||E X||_F^2`` is a sum of ``sigma_i^2 chi2_p``, which falls below its mean ``p ||E||_F^2`` by more than
  ``2 sqrt(x p sum sigma_i^4)`` with probability ``e^-x`` at most (Laurent & Massart 2000, lemma 1), and
  ``sum sigma_i^4 <= ||E||_2^2 ||E||_F^2``.

Where outliers were gathered in the first rows, W is the weight as it is stored, turned in float64: ``E x = G x - H^T W
(W^T (H x))`` has the rounding of the rotation in it. Rows of outliers count by what they do to the other eigenvalues: E
stands for ``S E S``, S the diagonal matrix of :func:`spectrum_fast.measure.spectra.rounding.scales_of`.

So an eigenvalue has moved by ``||E||_2`` at most (Weyl), and eigenvalues together by ``||E||_F`` in root of squares
(Hoffman & Wielandt). Each of the two bounds fails with probability :data:`MISSES`, over the choice of X, which is one
for all matrices of a size: the same matrix gets the same bound.

Source of the power: Halko, Martinsson & Tropp 2011, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import CARRIED
from spectrum_fast.measure.ops.product import multiply, multiply_band
from spectrum_fast.measure.spectra.arrays import Array, functions_of

MISSES = 1e-9
"""Probability that a bound does not hold, each."""
QUANTILES = {4: 8.9446e-5, 32: 4.21403}
"""theta: of chi-squared with p degrees of freedom, at :data:`MISSES`."""
UNEVEN = 0.75
"""What vectors say of how an error is spread, beyond which it counts as concentrated: half of it in one direction. What
is less may be the rounding of values that tower over the rest and are not rotated (0.2 is seen): it moves those."""
_SEED = 20406
_GRAM64_TERMS = 512.0
"""Worst rounding of a float64 Gram product in units of ``eps |W| |W|^T``, beside one for each 256 terms of a sum."""


@dataclass(frozen=True)
class Plan:
    """How a Gram matrix is probed.

    Attributes:
        vectors: p, one of :data:`QUANTILES`.
        powers: q, how many times E is applied to them: as many readings of the weights. A power of two.
    """

    vectors: int
    powers: int

    def start(self, size: int, device: torch.device) -> Tensor:
        """X as rows (p, size), float64, not to be written to; the same whenever it is asked for."""
        start = _draw(self.vectors, size, _SEED)
        return (start.pin_memory() if device.type == "cuda" else start).to(device, non_blocking=True)


@lru_cache(maxsize=8)
def _draw(vectors: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(vectors, size, generator=generator, dtype=torch.float64)


IN_MEMORY = Plan(4, 4)
"""Bounds come out at 5.1 to 5.5 times ``||E||_2`` (sides 576 and 1024, independent rounding); 8 vectors three times,
half as much again, give 3.8 to 4.1, and 4 vectors three times 9.4 to 10.2."""
HALVED = Plan(4, 2)
"""Twice as much in half the time: bounds on scores of 1.0e-5 for 5.5e-6 (576 x 1536, trained), 1.2e-5 for 6.6e-6 (1024
x 4096, made)."""
FEW_READINGS = Plan(32, 2)
"""Where the weights come anew from a file each time: 2.4 to 2.7."""


def measure_gram_error(
    grams: Tensor,
    image_of: Callable[[Sequence[int]], Callable[[Tensor], Tensor]],
    plans: Sequence[Plan],
    scales: Tensor,
) -> tuple[Tensor, Tensor]:
    """A bound on ``||E||_2`` of each matrix from probes, and vectors to be carried through its reduction.

    Args:
        grams: (m, k, k), as computed.
        image_of: of places of matrices, what gives ``W W^T x`` in float64, (m, p, k) -> (m, p, k), vectors as rows.
        plans: how many vectors, as many for all, and powers for each. What takes more powers than others goes on alone.
        scales: (m, 1), all one, or (m, k), S of diag: the bound is of ``S E S``.

    Returns:
        (m, 1) float64, and (m, CARRIED, k): some ``S X`` and their images ``W W^T S X``.
    """
    powers, image = [plan.powers for plan in plans], image_of(range(len(grams)))

    def scaled(x: Tensor, some: slice = slice(None)) -> Tensor:
        return x if scales.shape[1] == 1 else x * scales[some, None]

    start = scaled(plans[0].start(grams.shape[1], grams.device).expand(len(grams), -1, -1))
    images = image(start)
    carried = torch.cat([start[:, : CARRIED // 2], images[:, : CARRIED // 2]], dim=1)
    x = scaled(multiply(grams, start) - images)
    for done in range(1, max(powers)):
        going_on = [place for place, power in enumerate(powers) if power > done]
        if len(going_on) == len(powers):
            x = scaled(x)
            x = scaled(multiply(grams, x) - image(x))
            continue
        for place in going_on:
            one = slice(place, place + 1)
            y = scaled(x[one], one)
            x[one] = scaled(multiply(grams[one], y) - image_of([place])(y), one)
    # Weights are of a size (scaling.py) at which E^q X is far from the ends of float64; powers of that may not be.
    norms = torch.linalg.vector_norm(x, dim=(1, 2))
    x = x / torch.where(norms > 0, norms, 1.0)[:, None, None]
    squared = multiply(x, x)
    largest = multiply(squared, squared).square().sum((1, 2)).sqrt().sqrt().sqrt()  # at most p^(1/8) too much
    # Roots by square roots, for a power in a vector loop is not rounded like what is left over, and a matrix shall get
    # the same bits beside others.
    found = norms * largest / QUANTILES[plans[0].vectors] ** 0.5
    for level in range(1, max(powers).bit_length()):
        roots, deep = found.sqrt(), [power >> level > 0 for power in powers]
        found = roots if all(deep) else torch.where(torch.tensor(deep, device=found.device), roots, found)
    return found[:, None], carried


def residual_products(bands: Tensor, carried: Tensor, scales: Tensor) -> Tensor:
    """Inner products (m, 4, 4) of images ``E X``, ``E = S (W W^T - Q B Q^T) S`` all that rounding did until the band.

    Args:
        bands: (m, k, b + 1) float64.
        carried: as the reduction left them: ``Q^T S X`` and ``Q^T W W^T S X``.
        scales: (m, 1), all one, or (m, k), S of diag, of which Q turns no row that is scaled.
    """
    x, images = carried.chunk(2, dim=1)
    residuals = images - multiply_band(bands, x)
    residuals = residuals if scales.shape[1] == 1 else residuals * scales[:, None]
    return residuals @ residuals.mT


def estimate_frobenius(products: Array) -> tuple[Array, Array]:
    """Estimates of ``||E||_F`` from :func:`residual_products`, and whether E is concentrated in few directions.

    Images ``E X`` of four independent vectors are nearly orthogonal, and as long as each other, where many directions
    share it; they are parallel where it is of rank one. With their inner products C, ``4 ||C||_F^2 / trace(C)^2 - 1``
    is 3 then, and ``9 / k`` times the mean of nine squared Gaussian variables where k singular values are distributed
    as those of independent rounding. A share r of ``||E||_F^2`` in one direction makes it about ``3 r^2``.

    Returns:
        The estimates (m, 1), and (m, 1) bool: that number is more than :data:`UNEVEN`.
    """
    flat, count = products.reshape(len(products), -1), CARRIED // 2
    lengths = flat[:, :: count + 1].sum(1)[:, None]
    unevenness = count * (flat * flat).sum(1)[:, None] / (lengths * lengths) - 1  # NaN where nothing rounds
    return functions_of(lengths).sqrt(lengths / count), unevenness > UNEVEN


def bound_concentrated(estimates: Array) -> Array:
    """Bounds on Frobenius norms, and so on spectral ones, from :func:`estimate_frobenius`, whatever the error is like.

    ``||E X||_F^2`` is small no more often than where all of ``||E||_F`` lies in one direction (:data:`QUANTILES`).
    """
    return estimates * ((CARRIED // 2) / QUANTILES[CARRIED // 2]) ** 0.5


def bound_frobenius(estimates: Array, spectral: Array) -> Array:
    """Bounds on Frobenius norms from :func:`estimate_frobenius`, given bounds on spectral ones."""
    missed = 2 * spectral * math.sqrt(-math.log(MISSES) / (CARRIED // 2))
    return 0.5 * (missed + functions_of(missed).sqrt(missed * missed + 4 * estimates * estimates))


def bound_gram_error64(traces: Tensor, n_max: int) -> Tensor:
    """Bounds (m, 1) that hold for any float64 Gram product: ``|E| <= c eps |W| |W|^T``, its norms at most the trace.

    Args:
        traces: (m,) ``||W||_F^2``.
        n_max: terms of a sum.
    """
    return 2 * (_GRAM64_TERMS + n_max / 256) * torch.finfo(torch.float64).eps * traces[:, None]  # twice: the diagonal
