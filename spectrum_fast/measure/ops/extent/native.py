"""Extent of CPU tensors in C++ (kernels/extent_bind.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native


def measure(weights: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.extent.measure`."""
    found = [_native.measure(weight.contiguous()) for weight in weights]
    return torch.tensor(found, dtype=torch.float64).view(-1, 2)
