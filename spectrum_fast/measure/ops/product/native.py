"""Products with vectors by the compiled kernels (kernels/product): numbers are widened in registers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from spectrum_fast import _native

_TOGETHER = 4
"""Vectors that the kernels take together."""


def multiply(weights: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.product.multiply`."""
    count = x.shape[1]
    lacking = -count % _TOGETHER
    filled = (pad(x, (0, 0, 0, lacking)) if lacking else x).contiguous()
    out = torch.empty(len(x), count + lacking, weights.shape[2 if transposed else 1], dtype=torch.float64)
    _native.multiply(weights.contiguous(), filled, out, transposed)
    return out[:, :count] if lacking else out
