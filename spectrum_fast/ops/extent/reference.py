"""Extent of a tensor in plain torch, chunk by chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 20


def measure(weight: Tensor) -> tuple[float, float]:
    """See :func:`spectrum_fast.ops.extent.measure`."""
    largest, total = 0.0, 0.0
    for chunk in weight.reshape(-1).split(_CHUNK_ELEMENTS):
        values = chunk.to(torch.float64)
        top = float(values.abs().max())  # torch's maximum keeps NaN
        largest = math.nan if math.isnan(top) or math.isnan(largest) else max(largest, top)
        total += float(values.square().sum())
    return largest, total
