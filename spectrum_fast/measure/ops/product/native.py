"""Products with vectors by the compiled kernels (kernels/product): numbers are widened in registers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from spectrum_fast import _native
from spectrum_fast.measure.ops.border import passed
from spectrum_fast.measure.ops.memory import empty

_TOGETHER = 4
"""Vectors that the kernels take together."""


def multiply(weights: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.product.multiply`."""
    vectors, count = filled(x), x.shape[1]
    out = empty(*vectors.shape[:2], weights.shape[2 if transposed else 1], dtype=torch.float64)
    _native.multiply(*passed(weights.contiguous(), vectors, out), transposed=transposed)
    return out[:, :count]


def multiply_band(bands: Tensor, x: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.product.multiply_band`."""
    vectors, count = filled(x), x.shape[1]
    out = empty(*vectors.shape, dtype=vectors.dtype)
    _native.multiply_band(*passed(bands.contiguous(), vectors, out))
    return out[:, :count]


def filled(x: Tensor) -> Tensor:
    """Vectors (m, p, n) and zeros, as many as the kernels take together."""
    lacking = -x.shape[1] % _TOGETHER
    return (pad(x, (0, 0, 0, lacking)) if lacking else x).contiguous()
