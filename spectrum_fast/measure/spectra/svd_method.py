"""The oracle: every singular value, by LAPACK. Slow, simple, and the truth the other methods are held to."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.measure.spectra.binning import empty_histogram, fill_histogram
from spectrum_fast.measure.spectra.blockwise import triangular_factor
from spectrum_fast.measure.spectra.functionals import Functionals, doubt_threshold
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics
from spectrum_fast.read.stream import BlockMatrix

_SPLITTING = 100.0
"""Relative error, in eps, of one computed singular value: the dqds iteration of LAPACK splits a bidiagonal matrix where
an entry is below ``100 eps`` of its neighbours, which tears values apart that lie as near to each other. 60 is seen, in
spectra of clusters."""
_REDUCTION = 4.0
_REDUCTION_GROWTH = 0.5
"""Error of one value from the reduction to bidiagonal form, in units of ``eps s_max``: the first plus the second times
``sqrt(max(m, n))``. Seen: 2 for 100 x 100, 3 for 300, 7 for 1200 x 1200 (float32 against float64)."""


def svd_functionals(weight: Tensor | BlockMatrix, criterion: Criterion, dtype: torch.dtype) -> Functionals:
    """Functionals of ``weight`` (m x n) from ``torch.linalg.svdvals`` in ``dtype``.

    In float64, singular values at or below ``eps * max(m, n) * s_max`` cannot be told from zero (the customary
    numerical rank) and are taken as exactly zero, so that a rank-deficient matrix is not scored on rounding noise. In
    float32 that floor would swallow values which the stored weights do have: nothing is taken as zero, and where the
    noise sum is no more than rounding the bound says so. Of a matrix that comes in blocks the values of its triangular
    factor are taken, in one pass.
    """
    rows, columns = weight.shape
    n_min, n_max = min(rows, columns), max(rows, columns)
    eps = torch.finfo(dtype).eps
    whole = triangular_factor(weight, dtype) if isinstance(weight, BlockMatrix) else weight.to(dtype)
    values = torch.linalg.svdvals(whole).to(torch.float64).cpu().numpy()[::-1].copy()
    s_max = float(values[-1])
    reduction = (_REDUCTION + _REDUCTION_GROWTH * math.sqrt(n_max)) * eps * s_max

    def doubt(value: float) -> float:
        return _SPLITTING * eps * value + reduction

    at_floor, at_floor_limit = 0, 0.0
    is_zero = np.zeros(n_min, dtype=bool)
    if dtype == torch.float64:
        floor = eps * n_max * s_max
        reach = min(reduction, 0.5 * floor)
        at_floor, at_floor_limit = int(np.count_nonzero(np.abs(values - floor) <= reach)), floor + reach
        is_zero = values <= floor
        values[is_zero] = 0.0
    q25, q50, q75 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    if q75 - q25 <= doubt(q25) + doubt(q75):  # equal to rounding: an inter-quartile range of a few ulp is none
        q25 = q75 = q50
    statistics = OrderStatistics(float(values[0]), q25, q50, q75, s_max)
    threshold = criterion.threshold(statistics, n_min, n_max)
    is_noise = values <= threshold
    noise_sum, signal_sum = float(values[is_noise].sum()), float(values[~is_noise].sum())
    where = doubt_threshold(criterion, statistics, (doubt(q25), doubt(q50), doubt(q75)), n_min, n_max)
    lowest, highest = where.lowest - doubt(where.lowest), where.highest + doubt(where.highest)
    undecided = int(np.count_nonzero((values >= lowest) & (values <= highest) & ~is_zero))
    n_noise, nonzero_noise = int(is_noise.sum()), int(np.count_nonzero(is_noise & ~is_zero))
    if noise_sum == 0.0:  # then what may not be zero decides whether there is any noise
        undecided, highest = max(undecided, at_floor, nonzero_noise), max(highest, at_floor_limit, reduction)
    bins = empty_histogram(statistics)
    return Functionals(
        statistics=statistics,
        threshold=threshold,
        n_signal=n_min - n_noise,
        n_noise=n_noise,
        signal_sum=signal_sum,
        noise_sum=noise_sum,
        signal_error=_SPLITTING * eps * signal_sum + (n_min - n_noise) * reduction + at_floor * at_floor_limit,
        noise_error=_SPLITTING * eps * noise_sum + nonzero_noise * reduction + at_floor * at_floor_limit,
        s_max_error=doubt(s_max),
        n_undecided=undecided,
        largest_undecided=highest,
        threshold_error=where.relative,
        sum_of_squares=float(np.square(values).sum()),
        histogram=fill_histogram(bins, np.searchsorted(values, bins.edges[1:-1]), n_min),
    )
