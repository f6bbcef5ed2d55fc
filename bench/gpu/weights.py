"""Weights for benchmarks that every criterion finds signal and noise in, whatever their shape."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.gpu.timing import DEVICE

_GRADING = 0.5
"""Spread of the scales along the short side (standard deviation of their logarithm). The singular values of a wide
matrix of plain noise lie so close together that the published threshold is below all of them: no noise, no score."""
_DIRECTIONS = 48


def trained_like(count: int, m: int, n: int, *, on_host: bool = False) -> Tensor:
    """Graded noise and some directions above it, (count, m, n) bfloat16, made one by one: no wide copy of a batch.

    Args:
        count: matrices.
        m: rows.
        n: columns.
        on_host: in memory of the host, page-locked where there is a GPU.
    """
    weights = torch.empty(
        count,
        m,
        n,
        dtype=torch.bfloat16,
        device="cpu" if on_host else DEVICE,
        pin_memory=on_host and DEVICE == "cuda",
    )
    some = min(m, n, _DIRECTIONS)
    for index in range(count):
        noise = torch.randn(m, n, device=DEVICE) * 0.02
        noise *= torch.exp(_GRADING * torch.randn((m, 1) if m <= n else (1, n), device=DEVICE))
        noise += torch.randn(m, some, device=DEVICE) @ torch.randn(some, n, device=DEVICE) * 0.002
        weights[index] = noise
    return weights
