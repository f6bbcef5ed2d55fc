"""The oracle: every singular value, by LAPACK. Slow, simple, and the truth the other methods are held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.spectra.binning import empty_histogram, fill_histogram
from spectrum_fast.spectra.blockwise import triangular_factor
from spectrum_fast.spectra.functionals import Functionals
from spectrum_fast.spectra.record import Criterion, OrderStatistics
from spectrum_fast.stream import BlockMatrix

_BACKWARD_ERROR = 8.0
"""Backward error of ``svdvals`` in units of ``eps * s_max``; LAPACK's bound is a modest polynomial of the sides, 1 to 3
is what is seen."""


def svd_functionals(weight: Tensor | BlockMatrix, criterion: Criterion, dtype: torch.dtype) -> Functionals:
    """Functionals of ``weight`` (m x n) from ``torch.linalg.svdvals`` in ``dtype``.

    Singular values at or below ``eps(dtype) * max(m, n) * s_max`` cannot be told from zero (the customary numerical
    rank) and are taken as exactly zero, so that a rank-deficient matrix is not scored on rounding noise. Of a matrix
    that comes in blocks the values of its triangular factor are taken, in one pass.
    """
    rows, columns = weight.shape
    n_min, n_max = min(rows, columns), max(rows, columns)
    eps = torch.finfo(dtype).eps
    whole = triangular_factor(weight, dtype) if isinstance(weight, BlockMatrix) else weight.to(dtype)
    values = torch.linalg.svdvals(whole).to(torch.float64).cpu().numpy()[::-1].copy()
    s_max = float(values[-1])
    values[values <= eps * n_max * s_max] = 0.0
    q25, q50, q75 = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    doubt = _BACKWARD_ERROR * eps * s_max
    if q75 - q25 <= doubt:  # equal to rounding: an inter-quartile range of a few ulp is none
        q25 = q75 = q50
    statistics = OrderStatistics(float(values[0]), q25, q50, q75, s_max)
    threshold = criterion.threshold(statistics, n_min, n_max)
    is_noise = values <= threshold
    undecided = int(np.count_nonzero(np.abs(values - threshold) <= 2 * doubt)) if threshold > 0 else 0
    n_noise = int(is_noise.sum())
    nonzero_noise = int(np.count_nonzero(is_noise & (values > 0)))
    bins = empty_histogram(statistics)
    return Functionals(
        statistics=statistics,
        threshold=threshold,
        n_signal=n_min - n_noise,
        n_noise=n_noise,
        signal_sum=float(values[~is_noise].sum()),
        noise_sum=float(values[is_noise].sum()),
        signal_error=(n_min - n_noise) * doubt,
        noise_error=nonzero_noise * doubt,
        s_max_error=doubt,
        n_undecided=undecided,
        sum_of_squares=float(np.square(values).sum()),
        histogram=fill_histogram(bins, np.searchsorted(values, bins.edges[1:-1]), n_min),
    )
