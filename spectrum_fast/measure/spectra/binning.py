"""Which bins suit a spectrum: the same rule for every matrix of a batch, on arrays."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from spectrum_fast.measure.spectra.arrays import Array, functions_of, steps
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import OrderStatistics

BULK_BINS = 48
"""Bins of equal width from the smallest value to the knee."""
TAIL_BINS = 16
"""Bins of equal ratio from the knee to the largest value."""
KNEE_SPREADS = 3.0
"""The knee lies this many inter-quartile ranges above the upper quartile: well beyond the edge of pure noise,
which lies 0.9 above it in square matrices and 0.7 in thin ones, so that what is left there is few and far."""
NEAR_ZERO = 0.25
"""Below this part of the median, the smallest value does not set the first edge; zero does."""
SAME = 1e-12
"""Values nearer to each other than this part of the largest are one for a histogram."""


@dataclass(frozen=True)
class Bins:
    """Bins of each matrix; see :class:`spectrum_fast.measure.spectra.histogram.Histogram`.

    Attributes:
        start: (m,) lower edge of the first bin.
        knee: (m,) upper edge of the last bin of equal width.
        end: (m,) upper edge of the last bin.
        linear_bins: (m,) float64, how many have equal width; 1 where all values are one.
        inner: (m, bins - 1) edges between the bins.
    """

    start: Array
    knee: Array
    end: Array
    linear_bins: Array
    inner: Array

    def counts(self, below: Array, size: int) -> Array:
        """Values in each bin, (m, bins), of how many lie below each inner edge (float64), out of ``size``."""
        ends = 0.0 * below[:, :1]
        edges = functions_of(below).concatenate([ends, below, ends + size], 1)
        return edges[:, 1:] - edges[:, :-1]


def bins_of(statistics: OrderStatistics) -> Bins:
    """Bins that suit spectra with these order statistics, each an array (m,) of float64."""
    s: Any = statistics
    xp, bins = functions_of(s.q50), BULK_BINS + TAIL_BINS
    start = xp.where(s.s_min > NEAR_ZERO * s.q50, s.s_min, 0.0)
    end = xp.maximum(s.s_max, start)
    spread = s.q75 - s.q25
    knee = s.q75 + KNEE_SPREADS * spread
    one_value = end - start <= SAME * end
    # A tail only where there is one: past the knee by at least half of the bulk's width.
    no_tail = (spread <= SAME * end) | (knee <= start) | (end < knee + 0.5 * (knee - start)) | one_value
    knee = xp.where(no_tail, end, knee)
    linear_bins = xp.where(one_value, 1.0, xp.where(no_tail, float(bins), float(BULK_BINS)))

    index = steps(bins - 1, end)
    width = xp.where(no_tail, (end - start) / bins, (knee - start) / BULK_BINS)
    linear = start[:, None] + width[:, None] * index
    ratio = (end / knee.clip(sys.float_info.min))[:, None]
    tail = knee[:, None] * ratio ** ((index - BULK_BINS) / TAIL_BINS)
    inner = xp.where(no_tail[:, None] | (index <= BULK_BINS), linear, tail)
    return Bins(start, knee, end, linear_bins, inner)


def histogram_of(start: float, knee: float, end: float, linear_bins: int, counts: list[float], size: int) -> Histogram:
    """The histogram of one matrix from its bins and counts as plain numbers; one bin where all values are one."""
    if linear_bins == 1 or not 0 <= start <= knee <= end:
        end = max(start, end, 0.0)
        return Histogram(min(max(start, 0.0), end), end, end, 1, (size,))
    return Histogram(start, knee, end, linear_bins, tuple(map(int, counts)))
