"""The oracle: every singular value, by LAPACK. Slow, simple, and the truth the other methods are held to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.spectra.binning import bins_of, histogram_of
from spectrum_fast.measure.spectra.functionals import Functionals
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.methods.work import Attempts, Work
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics, SingularValues
from spectrum_fast.measure.spectra.thresholds import Thresholds, noise_edges

_SPLITTING = 100.0
"""Relative error, in eps, of one computed singular value: the dqds iteration of LAPACK splits a bidiagonal matrix where
an entry is below ``100 eps`` of its neighbours, which tears values apart that lie as near to each other. 60 is seen, in
spectra of clusters."""
_Values = TypeVar("_Values", float, npt.NDArray[np.float64])
_REDUCTION = 4.0
_REDUCTION_GROWTH = 0.5
"""Error of one value from the reduction to bidiagonal form, in units of ``eps s_max``: the first plus the second times
``sqrt(max(m, n))``. Seen: 2 for 100 x 100, 3 for 300, 7 for 1200 x 1200 (float32 against float64)."""


def decompose(work: Work, unsolved: Sequence[int], dtype: torch.dtype) -> Attempts:
    """See :func:`svd_functionals`, one matrix after the other."""
    attempts: Attempts = {}
    for index in unsolved:
        try:
            whole = work.matrices.take([index]).factor(dtype)
            found = svd_functionals(whole, work.request.criterion, work.matrices.shape)
        except (TensorError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
            attempts[index] = error
            continue
        name = f"svd-{str(dtype).removeprefix('torch.')}"
        attempts[index] = work.attempt(found, name, work.why(index))
    return attempts


def svd_functionals(matrix: Tensor, criterion: Criterion, shape: tuple[int, int]) -> Functionals:
    """Functionals of a matrix from ``torch.linalg.svdvals`` in its own dtype.

    In float64, singular values at or below ``eps * max(m, n) * s_max`` cannot be told from zero (the customary
    numerical rank) and are taken as exactly zero, so that a rank-deficient matrix is not scored on rounding noise. In
    float32 that floor would swallow values which the stored weights do have: nothing is taken as zero, and where the
    noise sum is no more than rounding the bound says so.

    Args:
        matrix: float32 or float64; of weights that come in blocks, their triangular factor; of factors, what has all
            values that are not zero.
        criterion: the rule that gives the threshold.
        shape: of the weights.
    """
    (n_min, n_max), eps = sorted(shape), torch.finfo(matrix.dtype).eps
    found = torch.linalg.svdvals(matrix).to(torch.float64).cpu().numpy()[::-1]
    values = np.concatenate([np.zeros(n_min - len(found)), found])
    s_max = float(values[-1])
    reduction = (_REDUCTION + _REDUCTION_GROWTH * math.sqrt(n_max)) * eps * s_max

    def doubt(value: _Values) -> _Values:
        return _SPLITTING * eps * value + reduction

    at_floor, at_floor_limit, at_most = 0, 0.0, 0.0
    is_zero = np.zeros(n_min, dtype=bool)
    if matrix.dtype == torch.float64:
        floor = eps * n_max * s_max
        reach = min(reduction, 0.5 * floor)
        at_floor, at_floor_limit = int(np.count_nonzero(np.abs(values - floor) <= reach)), floor + reach
        is_zero, at_most = values <= floor, floor
        values[is_zero] = 0.0
    q25, q50, q75 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    lost = 0.0
    if q75 - q25 <= doubt(q25) + doubt(q75):  # equal to rounding: an inter-quartile range of a few ulp is none
        lost, q25, q75 = q75 - q25, q50, q50
    statistics = OrderStatistics(float(values[0]), q25, q50, q75, s_max)
    of_one: list[Any] = [np.array([value]) for value in (statistics.s_min, q25, q50, q75, s_max)]
    arrays, doubts = OrderStatistics(*of_one), [np.array([doubt(value)]) for value in (q25, q50, q75)]
    thresholds = Thresholds.of(criterion, arrays, doubts, n_min, n_max)
    threshold, lowest, highest = (float(of[0]) for of in (thresholds.middle, thresholds.lowest, thresholds.highest))
    is_noise = values <= threshold
    noise_sum, signal_sum = float(values[is_noise].sum()), float(values[~is_noise].sum())
    shift = (2 if lost else 1) * max(threshold - lowest, highest - threshold)
    lowest, highest = lowest - doubt(lowest), highest + doubt(highest)
    undecided = int(np.count_nonzero((values >= lowest) & (values <= highest) & ~is_zero))
    least, edge, most = noise_edges(criterion, statistics, doubt(q50), n_min, n_max)
    near_edge = (values >= least - doubt(least)) & (values <= most + doubt(most)) & ~is_zero
    n_noise, nonzero_noise = int(is_noise.sum()), int(np.count_nonzero(is_noise & ~is_zero))
    if noise_sum == 0.0:  # then what may not be zero decides whether there is any noise
        undecided, highest = max(undecided, at_floor, nonzero_noise), max(highest, at_floor_limit, reduction)
    return Functionals(
        statistics=statistics,
        threshold=threshold,
        n_signal=n_min - n_noise,
        n_noise=n_noise,
        signal_sum=signal_sum,
        noise_sum=noise_sum,
        errors=OrderStatistics(doubt(statistics.s_min), lost + doubt(q25), doubt(q50), lost + doubt(q75), doubt(s_max)),
        threshold_shift=shift,
        signal_error=_SPLITTING * eps * signal_sum + (n_min - n_noise) * reduction + at_floor * at_floor_limit,
        noise_error=_SPLITTING * eps * noise_sum + nonzero_noise * reduction + at_floor * at_floor_limit,
        n_undecided=undecided,
        largest_undecided=highest,
        threshold_error=float(thresholds.relative[0]),
        sum_of_squares=float(np.square(values).sum()),
        histogram=_histogram(values, arrays),
        mp_rank=int(np.count_nonzero(values > edge)),
        mp_undecided=int(np.count_nonzero(near_edge)),
        singular_values=SingularValues(values[::-1].copy(), (doubt(values) + at_most * is_zero)[::-1].copy()),
    )


def _histogram(values: np.ndarray, statistics: OrderStatistics) -> Histogram:
    bins = bins_of(statistics)
    below = np.searchsorted(values, bins.inner).astype(np.float64)
    counts = bins.counts(below, len(values))[0].tolist()
    start, knee, end, linear_bins = (float(of[0]) for of in (bins.start, bins.knee, bins.end, bins.linear_bins))
    return histogram_of(start, knee, end, int(linear_bins), counts, len(values))
