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

_SMALL_R, _TERMS = 0.1, 20


@lru_cache(maxsize=4096)
def median_eigenvalue(beta: float) -> float:
    """Median of the Marchenko-Pastur law with unit variance and aspect ratio ``beta`` in (0, 1].

    With ``x = 1 + beta + 2 r cos(theta)``, ``r = sqrt(beta)``, the law's mass above ``x`` is

        ``(theta - r sin(theta) - (1 - beta) S(theta)) / pi``,
        ``S(theta) = sum_{j >= 2} (-r)^(j - 2) sin(j theta) / j = (r sin(theta) - arg(1 + r e^{i theta})) / beta``,

    which bisection sets to one half. Relative accuracy 1e-14.

    >>> round(median_eigenvalue(1.0), 4)
    0.6528
    >>> round(median_eigenvalue(1e-6), 4)
    1.0
    """
    r = math.sqrt(beta)
    low, high = 0.0, math.pi
    while True:
        theta = 0.5 * (low + high)
        if not low < theta < high:
            return 1 + beta + 2 * r * math.cos(theta)
        above = (theta - r * math.sin(theta) - (1 - beta) * _sine_sum(r, theta)) / math.pi
        low, high = (theta, high) if above < 0.5 else (low, theta)


def _sine_sum(r: float, theta: float) -> float:
    """``S`` of :func:`median_eigenvalue`; where r is small its closed form is a difference of two equal numbers."""
    if r > _SMALL_R:
        return (r * math.sin(theta) - math.atan2(r * math.sin(theta), 1 + r * math.cos(theta))) / (r * r)
    return sum((-r) ** (j - 2) * math.sin(j * theta) / j for j in range(2, _TERMS))


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
