"""A histogram of singular values that is small enough to be kept for every matrix of a scan.

Up to a knee, bins of equal width hold the bulk; above it, bins of equal ratio hold the outliers, however far they lie.
Counts are exact but for values within rounding of an edge, because the engine counts and does not sample: the inner
edges are some sixty more shifts in a sweep that runs anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spectrum_fast.errors import TensorError


@dataclass(frozen=True)
class Histogram:
    """Counts of singular values between stated edges.

    Bin i holds ``edges[i] <= s < edges[i + 1]``, the last one its upper edge too. ``linear_bins`` bins of equal width
    reach from ``start`` to ``knee``; the others, each larger than the one before by the same ratio, from there to
    ``end``. Values that rounding puts outside [start, end] are in the first or the last bin, so that the counts sum to
    the number of singular values.

    Attributes:
        start: lower edge of the first bin, at least 0.
        knee: upper edge of the last bin of equal width; equal to ``end`` where there are no others.
        end: upper edge of the last bin.
        linear_bins: how many bins have equal width, at least 1.
        counts: singular values in each bin.

    Raises:
        TensorError: edges out of order, or a count that is not one.
    """

    start: float
    knee: float
    end: float
    linear_bins: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(map(int, self.counts)))
        if not (0 <= self.start <= self.knee <= self.end and math.isfinite(self.end)):
            found = f"{self.start!r}, {self.knee!r}, {self.end!r}"
            raise TensorError(f"histogram: expected finite 0 <= start <= knee <= end, found {found}")
        tail_bins = len(self.counts) - self.linear_bins
        if self.linear_bins < 1 or tail_bins < 0:
            raise TensorError(f"histogram: expected 1 to {len(self.counts)} linear bins, found {self.linear_bins}")
        if (tail_bins > 0) != (self.knee < self.end) or (tail_bins and self.knee <= 0):
            raise TensorError(
                f"histogram: expected bins beyond a knee above 0 and below the end, and only there, "
                f"found {tail_bins} for knee {self.knee!r} and end {self.end!r}"
            )
        if min(self.counts) < 0:
            raise TensorError(f"histogram: expected counts >= 0, found {min(self.counts)}")

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """The ``len(counts) + 1`` edges, ascending."""
        linear = np.linspace(self.start, self.knee, self.linear_bins + 1)
        tail_bins = len(self.counts) - self.linear_bins
        return np.concatenate([linear, np.geomspace(self.knee, self.end, tail_bins + 1)[1:]]) if tail_bins else linear

    def scaled(self, factor: float) -> Histogram:
        """The histogram of ``factor`` times the matrix."""
        if factor == 1:
            return self
        start, knee, end = self.start * factor, self.knee * factor, self.end * factor
        if len(self.counts) > self.linear_bins and not 0 < knee < end:  # so small that the edges become one number
            return Histogram(start, end, end, 1, (sum(self.counts),))
        return Histogram(start, knee, end, self.linear_bins, self.counts)
