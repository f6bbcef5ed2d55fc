"""Extent of CPU tensors in C++ (kernels/extent)."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native
from spectrum_fast.measure.ops.border import passed


def measure(weights: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.extent.measure`."""
    found = torch.empty(len(weights), 2, dtype=torch.float64)
    _native.measure(*passed(weights.contiguous(), found))
    return found
