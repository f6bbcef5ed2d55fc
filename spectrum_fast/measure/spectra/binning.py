"""Which bins suit a spectrum, and counts into them: the two halves of a :class:`Histogram`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


def empty_histogram(statistics: OrderStatistics) -> Histogram:
    """The bins that suit a spectrum with these order statistics, with nothing in them yet."""
    start = statistics.s_min if statistics.s_min > NEAR_ZERO * statistics.q50 else 0.0
    end = max(statistics.s_max, start)
    spread = statistics.q75 - statistics.q25
    if end - start <= SAME * end:  # one value, many times
        return Histogram(start, end, end, 1, (0,))
    knee = statistics.q75 + KNEE_SPREADS * spread
    # A tail only where there is one: past the knee by at least half of the bulk's width.
    if spread <= SAME * end or knee <= start or end < knee + 0.5 * (knee - start):
        return Histogram(start, end, end, BULK_BINS + TAIL_BINS, (0,) * (BULK_BINS + TAIL_BINS))
    return Histogram(start, knee, end, BULK_BINS, (0,) * (BULK_BINS + TAIL_BINS))


def fill_histogram(empty: Histogram, below: npt.NDArray[np.int64], size: int) -> Histogram:
    """The same bins with counts in them.

    Args:
        empty: the bins.
        below: how many values lie below each inner edge (``empty.edges[1:-1]``), non-decreasing.
        size: how many values there are.
    """
    counts = np.diff(np.concatenate([[0], below, [size]]))
    return Histogram(empty.start, empty.knee, empty.end, empty.linear_bins, tuple(counts.tolist()))
