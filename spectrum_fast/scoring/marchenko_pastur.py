"""The Marchenko-Pastur law: where the singular values of pure noise lie.

For an ``n_min x n_max`` matrix of independent entries with standard deviation ``sigma`` and ``beta = n_min / n_max``,
the squared singular values divided by ``n_max sigma^2`` fill ``[a, b] = [(1 - sqrt(beta))^2, (1 + sqrt(beta))^2]`` with
density ``sqrt((b - x)(x - a)) / (2 pi beta x)``.

Source: Marchenko & Pastur 1967; the median as a noise estimate: Gavish & Donoho, arXiv 1305.5870.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_NODES = 20001


@lru_cache(maxsize=256)
def median_eigenvalue(beta: float) -> float:
    """Median of the Marchenko-Pastur law with unit variance and aspect ratio ``beta`` in (0, 1].

    With ``x = 1 + beta + 2 sqrt(beta) cos(theta)`` the density becomes the smooth
    ``(2 / pi) sin(theta)^2 / x`` in ``theta``; its cumulative sum is inverted by interpolation. Relative accuracy 1e-7.

    >>> round(median_eigenvalue(1.0), 4)
    0.6528
    >>> round(median_eigenvalue(1e-6), 4)
    1.0
    """
    theta = np.linspace(0.0, math.pi, _NODES)
    x = 1 + beta + 2 * math.sqrt(beta) * np.cos(theta)
    sine = np.sin(theta)
    # At beta = 1, theta = pi the quotient is 0/0 with limit 1; elsewhere x stays positive.
    density = np.divide(sine * sine, x, out=np.ones_like(x), where=x > 1e-12) * (2 / math.pi)
    step = theta[1]
    # Simpson's rule on each pair of cells, so that the cumulative values at even nodes are accurate to step^4.
    cells = (density[:-2:2] + 4 * density[1:-1:2] + density[2::2]) * (step / 3)
    cumulative = np.concatenate([[0.0], np.cumsum(cells)])
    middle = float(np.interp(0.5 * cumulative[-1], cumulative, theta[::2]))
    return 1 + beta + 2 * math.sqrt(beta) * math.cos(middle)


def noise_scale(median_singular_value: float, n_min: int, n_max: int) -> float:
    """Standard deviation ``sigma`` of the noise entries whose median singular value is the one given.

    ``sigma = q50 / sqrt(n_max * median_eigenvalue(n_min / n_max))``.
    """
    return median_singular_value / math.sqrt(n_max * median_eigenvalue(n_min / n_max))


def upper_edge(sigma: float, n_min: int, n_max: int) -> float:
    """Largest singular value of noise in the limit: ``sigma (sqrt(n_min) + sqrt(n_max))``."""
    return sigma * (math.sqrt(n_min) + math.sqrt(n_max))


def singular_value_density(
    values: npt.NDArray[np.float64], sigma: float, n_min: int, n_max: int
) -> npt.NDArray[np.float64]:
    """Density of the singular values ``s`` of noise; its integral over all ``s`` is 1.

    ``f(s) = sqrt((s^2 - s_-^2)(s_+^2 - s^2)) / (pi sigma^2 n_min s)`` between the edges
    ``s_-+ = sigma (sqrt(n_max) -+ sqrt(n_min))``, and 0 outside: the law of ``x = s^2 / (n_max sigma^2)`` by change of
    variable.

    Args:
        values: where to evaluate it.
        sigma: standard deviation of the entries.
        n_min: short side of the matrix.
        n_max: long side.

    >>> round(float(singular_value_density(np.array([1.0]), 1.0, 1, 1)[0]), 4)  # quarter circle of radius 2
    0.5513
    """
    if sigma <= 0:
        return np.zeros_like(values)
    low = sigma * (math.sqrt(n_max) - math.sqrt(n_min))
    high = sigma * (math.sqrt(n_max) + math.sqrt(n_min))
    squares = values * values
    inside = np.where(values > 0, np.maximum((squares - low * low) * (high * high - squares), 0.0), 0.0)
    positive = np.where(values > 0, values, 1.0)
    density = np.sqrt(inside) / (math.pi * sigma * sigma * n_min * positive)
    if n_min == n_max:  # at zero the quotient is 0/0 with limit
        density = np.where(values == 0, high / (math.pi * sigma * sigma * n_min), density)
    return density
