"""The bins of :mod:`spectrum_fast.measure.spectra.binning` for a batch: the same rule on tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.binning import BULK_BINS, KNEE_SPREADS, NEAR_ZERO, SAME, TAIL_BINS
from spectrum_fast.measure.spectra.record import OrderStatistics


@dataclass(frozen=True)
class BatchBins:
    """Bins of each matrix; see :class:`spectrum_fast.measure.spectra.histogram.Histogram`.

    Attributes:
        start: (m,) lower edge of the first bin.
        knee: (m,) upper edge of the last bin of equal width.
        end: (m,) upper edge of the last bin.
        linear_bins: (m,) float64, how many have equal width; 1 where all values are one.
        inner: (m, bins - 1) edges between the bins.
    """

    start: Tensor
    knee: Tensor
    end: Tensor
    linear_bins: Tensor
    inner: Tensor


def bins_of(statistics: OrderStatistics) -> BatchBins:
    """Bins that suit spectra with these order statistics, each a tensor (m,)."""
    s_min, q25, q50, q75, s_max = (
        torch.as_tensor(value)
        for value in (statistics.s_min, statistics.q25, statistics.q50, statistics.q75, statistics.s_max)
    )
    bins = BULK_BINS + TAIL_BINS
    start = torch.where(s_min > NEAR_ZERO * q50, s_min, 0.0)
    end = torch.maximum(s_max, start)
    spread = q75 - q25
    knee = q75 + KNEE_SPREADS * spread
    one_value = end - start <= SAME * end
    no_tail = (spread <= SAME * end) | (knee <= start) | (end < knee + 0.5 * (knee - start))
    knee = torch.where(one_value | no_tail, end, knee)
    linear_bins = torch.where(one_value, 1.0, torch.where(no_tail, float(bins), float(BULK_BINS)))

    index = torch.arange(1, bins, dtype=torch.float64, device=end.device)
    even = start[:, None] + (end - start)[:, None] * (index / bins)
    bulk = start[:, None] + (knee - start)[:, None] * (index / BULK_BINS)
    ratio = (end / knee.clamp(min=torch.finfo(torch.float64).tiny))[:, None]
    tail = knee[:, None] * ratio ** ((index - BULK_BINS) / TAIL_BINS)
    inner = torch.where(no_tail[:, None] | one_value[:, None], even, torch.where(index <= BULK_BINS, bulk, tail))
    return BatchBins(start, knee, end, linear_bins, inner)
