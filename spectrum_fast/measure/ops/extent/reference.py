"""Extent in plain torch, some four million numbers at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22


def measure(weights: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.extent.measure`."""
    tops, sums = [], []
    for chunk in weights.flatten(1).split(max(1, _CHUNK_ELEMENTS // max(1, len(weights))), dim=1):
        values = chunk.to(torch.float64)
        tops.append(values.abs().amax(1))  # torch's maximum keeps NaN
        sums.append(values.square().sum(1))
    return torch.stack([torch.stack(tops).amax(0), torch.stack(sums).sum(0)], dim=1)
