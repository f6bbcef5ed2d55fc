"""The tail exponent of a spectrum: how slowly the largest eigenvalues of ``W^T W`` fall off, as WeightWatcher fits it.

Source: Clauset, Shalizi & Newman, SIAM Review 51 (2009), for the fit; Martin, Peng & Mahoney, Nature Communications 12
(2021), and WeightWatcher 0.7.7 for what is fitted.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.quantities import Measured, SpectrumView

LEAST_EIGENVALUE = 1e-5
"""Smaller ones are no part of the fit."""
FEW = 20
"""With fewer eigenvalues the fit is corrected for its bias, ``alpha = 1 + (n - 1) / sum ...``,"""
LEAST_TAIL = 8
"""and tails are no shorter than this."""
_Numbers: TypeAlias = npt.NDArray[np.float64]


def alpha(spectrum: SpectrumView) -> Measured:
    """Exponent of the power law ``p(x) ~ x^-alpha`` fitted to the eigenvalues ``x = s^2`` from some ``x_min`` up.

    For each ``x_min`` among them, with n from there up, ``alpha = 1 + n / sum log(x_i / x_min)`` (maximum likelihood);
    that ``x_min`` is taken whose fit has the least Kolmogorov-Smirnov distance. 2 to 6 in well-trained layers; small
    means a heavy tail. Invariant to rotations, and to scale as long as no eigenvalue crosses 1e-5 by it. Needs all
    singular values.

    Bound: the exponents of all tails that could be the nearest fit, every value anywhere within its bound.

    Raises:
        UsageError: fewer than two eigenvalues are above 1e-5, or all of them are equal.
    """
    fit = _nearest_fit(spectrum.values)
    if fit is None:
        raise UsageError(f"{spectrum.name}: expected two different eigenvalues above {LEAST_EIGENVALUE:g}, found none")
    logs, exponents, distances, best = fit
    values, bounds = (numbers[: len(logs)][::-1] for numbers in (spectrum.values, spectrum.bounds))
    with np.errstate(divide="ignore"):
        down = -2 * np.log1p(-np.minimum(bounds / values, 1.0))  # no farther than where it leaves the fit
    doubts = np.maximum(np.minimum(down, logs - math.log(LEAST_EIGENVALUE)), 2 * np.log1p(bounds / values))
    value = float(exponents[best])
    exponent_errors, distance_errors = _errors(logs, exponents, doubts)
    possible = distances - distance_errors <= distances[best] + distance_errors[best]
    reach = np.abs(exponents[possible] - value) + exponent_errors[possible]
    return value, float(reach.max()) if np.isfinite(reach).all() else math.inf


def fitted_tail(values: _Numbers) -> tuple[float, float, int] | None:
    """Of the tail that :func:`alpha` fits: its exponent, least singular value and length; None where it fits none.

    Args:
        values: singular values, descending.
    """
    fit = _nearest_fit(values)
    if fit is None:
        return None
    logs, exponents, _, best = fit
    length = len(logs) - best
    return float(exponents[best]), float(values[length - 1]), length


def _nearest_fit(values: _Numbers) -> tuple[_Numbers, _Numbers, _Numbers, int] | None:
    """Ascending logarithms of the eigenvalues that take part, exponent and distance of each tail, the nearest's place.

    None where fewer than two eigenvalues do, or all are equal.
    """
    logs = 2 * np.log(values[values**2 > LEAST_EIGENVALUE][::-1])
    if len(logs) < 2 or logs[-1] == logs[0]:
        return None
    exponents, distances = _fits(logs)
    return logs, exponents, distances, int(np.argmin(distances))


def _fits(logs: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Exponent and distance of each tail of ascending logarithms; the distance is infinite where there is no fit."""
    count = len(logs)
    sizes = count - np.arange(count - 1, dtype=np.float64)
    sums = np.cumsum(logs[::-1])[::-1][:-1] - sizes * logs[:-1]
    few = count < FEW
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.where(sums > 0, 1 + (sizes - few) / sums, np.inf)
    distances = np.full(count - 1, np.inf)
    for first in np.flatnonzero(np.isfinite(exponents)):
        size = count - first
        if few and size < min(LEAST_TAIL, count):
            continue
        fitted = -np.expm1((1 - exponents[first]) * (logs[first:] - logs[first]))
        distances[first] = np.abs(fitted - np.arange(size) / size).max()
    return exponents, distances


def _errors(logs: _Numbers, exponents: _Numbers, doubts: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Bounds on the errors of exponents and distances, each logarithm off by no more than its doubt.

    With ``beta = alpha - 1`` and ``u = beta log(x / x_min)`` a fitted share is ``1 - exp(-u)``. A relative error r of
    beta moves it by no more than ``r u exp(-u) <= r / e``, one of the logarithms by no more than beta times theirs.
    """
    sizes = len(logs) - np.arange(len(exponents))
    tails = np.cumsum(doubts[::-1])[::-1][:-1] + sizes * doubts[:-1]  # of the sum of log(x_i / x_min)
    widest = doubts[:-1] + np.maximum.accumulate(doubts[::-1])[::-1][:-1]
    beta = exponents - 1
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        relative = beta * tails / (sizes - (len(logs) < FEW))
        relative = np.where(relative < 1, relative / (1 - relative), np.inf)
        of_exponents = beta * relative
        of_distances = (1 + relative) * relative / math.e + (1 + relative) * beta * widest
    rounding = 8 * len(logs) * np.finfo(np.float64).eps
    return of_exponents + rounding * exponents, of_distances + rounding
