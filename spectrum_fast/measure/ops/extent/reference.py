"""Extent of a tensor in plain torch, chunk by chunk; one transfer to the host, however many chunks."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22


def measure(weight: Tensor) -> tuple[float, float]:
    """See :func:`spectrum_fast.measure.ops.extent.measure`."""
    largest, total = measure_there(weight).tolist()
    return largest, total


def measure_there(weight: Tensor) -> Tensor:
    """The two numbers of :func:`measure` as a float64 tensor on the weight's device, without a wait for it."""
    tops, sums = [], []
    for chunk in weight.reshape(-1).split(_CHUNK_ELEMENTS):
        values = chunk.to(torch.float64)
        tops.append(values.abs().amax())  # torch's maximum keeps NaN
        sums.append(values.square().sum())
    return torch.stack([torch.stack(tops).amax(), torch.stack(sums).sum()])
