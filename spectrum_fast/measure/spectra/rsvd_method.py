"""The quick look: the largest singular values by randomized block Krylov, the rest by the Marchenko-Pastur law.

The law's scale is set so that the squares of the modelled values sum to the exact energy that the values found leave.
This is an **estimate**: trained bulks follow the law only roughly, and the published rule's threshold is made of the
bulk's quartiles. The error stated is not a bound by proof. It is what the score changes when the threshold moves by
``THRESHOLD_DOUBT`` relative to the bulk, and at least ``LEAST_ERROR``; how often it holds is measured in
tests/measure/spectra/test_rsvd.py. Where that change is unlimited (the noise set may be empty, as in wide matrices
under the published rule), or the values found do not reach down to the law's edge, the error is infinite and a scan
reports a failure instead of a score. Never the default.

Source: Halko, Martinsson & Tropp 2011; Marchenko & Pastur 1967.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectrum_fast.measure.spectra.binning import empty_histogram, fill_histogram
from spectrum_fast.measure.spectra.functionals import Functionals
from spectrum_fast.measure.spectra.lowrank import LowRankSvd, svd_lowrank
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics

THRESHOLD_DOUBT = 0.15
"""Relative doubt of the threshold against the bulk; the quartiles of trained matrices differ by 5 to 12 % from the
law's (MiniLM)."""
LEAST_ERROR = 0.2
_FIRST_RANK = 64
_PASSES = 3
_EDGE = 1.1
"""Values are looked for until the last one lies no further than this above the modelled bulk's edge."""
_MISFIT = 1.25
"""Where a third of all values is found and the last one still lies this far above, the law does not describe the rest
(power laws, geometric decay: 1.9 to 2.8; MiniLM: up to 1.16)."""
_LAW_POINTS = 4096

Floats = NDArray[np.float64]


def rsvd_functionals(weight: Tensor, criterion: Criterion) -> tuple[Functionals, float, str]:
    """Estimated functionals of ``weight`` (m x n, finite), the stated relative error of its score, and the reason.

    Args:
        weight: its short side is large enough for a sketch to pay.
        criterion: the rule that gives the threshold.
    """
    n_min, n_max = min(weight.shape), max(weight.shape)
    rank, most = min(_FIRST_RANK, n_min // 4), n_min // 3
    while True:
        found = svd_lowrank(weight, rank, n_iter=_PASSES, vectors=False)
        assert isinstance(found, LowRankSvd)  # noqa: S101 - one matrix gives one result
        top = found.s.numpy()[::-1]
        bulk = _bulk(found, n_min, n_max)
        if top[0] <= _EDGE * bulk[-1] or rank >= most:
            break
        rank = min(2 * rank, most)
    values: Floats = np.concatenate([np.minimum(bulk, top[0]), top])
    q25, q50, q75 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    statistics = OrderStatistics(float(values[0]), q25, q50, q75, float(values[-1]))
    threshold = criterion.threshold(statistics, n_min, n_max)
    signal, noise = _sums(values, threshold)
    error = _stated_error(values, threshold) if top[0] <= _MISFIT * bulk[-1] else math.inf
    bins = empty_histogram(statistics)
    functionals = Functionals(
        statistics=statistics,
        threshold=threshold,
        n_signal=int((values > threshold).sum()),
        n_noise=int((values <= threshold).sum()),
        signal_sum=signal,
        noise_sum=noise,
        signal_error=error * signal,
        noise_error=error * noise,
        s_max_error=error * statistics.s_max,
        n_undecided=0 if noise > 0 else 1,  # an estimate never says noise-free
        largest_undecided=threshold,
        threshold_error=0.0,
        sum_of_squares=float(np.square(values).sum()),
        histogram=fill_histogram(bins, np.searchsorted(values, bins.edges[1:-1]), n_min),
    )
    return functionals, error, f"estimate: {len(top)} values found, {len(bulk)} modelled by the Marchenko-Pastur law"


def _bulk(found: LowRankSvd, n_min: int, n_max: int) -> Floats:
    """The values not found: quantiles of the law for what is left, scaled to the energy that is left; rising."""
    rest = n_min - found.rank
    law = law_quantiles(rest, n_min - found.rank, n_max - found.rank)
    energy = float(np.square(law).sum())
    return law * (found.frobenius_error / math.sqrt(energy))


def law_quantiles(count: int, n_min: int, n_max: int) -> Floats:
    """The quantiles ``(i + 1/2) / count`` of the singular values of an ``n_min x n_max`` matrix of unit noise, rising.

    By the substitution ``lambda = m - h cos(t)`` the density is smooth at both edges.
    """
    low, high = (math.sqrt(n_max) - math.sqrt(n_min)) ** 2, (math.sqrt(n_max) + math.sqrt(n_min)) ** 2
    t = (np.arange(_LAW_POINTS) + 0.5) * (np.pi / _LAW_POINTS)
    eigenvalues = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(t)
    weights = np.square(np.sin(t)) / eigenvalues
    below = np.cumsum(weights) - 0.5 * weights
    places = (np.arange(count) + 0.5) / count
    return np.sqrt(np.interp(places, below / weights.sum(), eigenvalues))


def _sums(values: Floats, threshold: float) -> tuple[float, float]:
    above = values > threshold
    return float(values[above].sum()), float(values[~above].sum())


def _stated_error(values: Floats, threshold: float) -> float:
    """Largest relative change of the ratio of sums when the threshold moves by its doubt; infinite if one vanishes."""
    signal, noise = _sums(values, threshold)
    if signal == 0.0 or noise == 0.0:
        return math.inf
    error = LEAST_ERROR
    for factor in (1 - THRESHOLD_DOUBT, 1 + THRESHOLD_DOUBT):
        other_signal, other_noise = _sums(values, factor * threshold)
        if other_signal == 0.0 or other_noise == 0.0:
            return math.inf
        error = max(error, abs(other_signal / other_noise / (signal / noise) - 1))
    return error
