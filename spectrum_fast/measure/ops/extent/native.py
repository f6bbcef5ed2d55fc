"""Extent of a CPU tensor in C++ (kernels/extent_bind.cpp)."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast import _native


def measure(weight: Tensor) -> tuple[float, float]:
    """See :func:`spectrum_fast.measure.ops.extent.measure`."""
    return _native.measure(weight.contiguous())
