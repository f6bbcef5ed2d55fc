"""Products with vectors in torch operations, some rows at a time, so that no float64 copy of a matrix is made."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

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


def multiply_band(bands: Tensor, x: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.product.multiply_band`; few operations, of more numbers than there are."""
    count, size, width = bands.shape
    b = width - 1
    above = bands[:, None] * pad(x, (0, b)).unfold(2, width, 1)  # B[i, i + d] x[i + d]
    padded = pad(bands, (0, 0, b, 0))
    mirrored = padded.as_strided((count, size, b), ((size + b) * width, width, b), b)  # B[i, i - b + d], d < b
    below = mirrored[:, None] * pad(x, (b, 0))[:, :, : size + b - 1].unfold(2, b, 1)
    return above.sum(-1) + below.sum(-1)
