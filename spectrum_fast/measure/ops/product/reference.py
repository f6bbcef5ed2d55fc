"""Products with vectors in torch operations, some rows at a time, so that no float64 copy of a matrix is made."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22


def multiply(weights: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.product.multiply`."""
    rows = max(1, _CHUNK_ELEMENTS // (len(weights) * weights.shape[2]))
    chunks = weights.split(rows, dim=1)
    if not transposed:
        return torch.cat([x @ chunk.to(torch.float64).mT for chunk in chunks], dim=2)
    out = torch.zeros(*x.shape[:2], weights.shape[2], dtype=torch.float64, device=x.device)
    for part, chunk in zip(x.split(rows, dim=2), chunks, strict=True):
        out += part @ chunk.to(torch.float64)
    return out
