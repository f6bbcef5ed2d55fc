"""Largest absolute entry and sum of squares of a tensor, in one pass over its bytes."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module


def measure(weight: Tensor, *, backend: str = "auto") -> tuple[float, float]:
    """``(max |w|, sum w^2)`` of a float64, float32, float16 or bfloat16 tensor of any shape.

    Args:
        weight: the tensor; the native form copies it if it is not contiguous.
        backend: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.

    Returns:
        The largest absolute entry (NaN or infinity if the tensor holds one) and the sum of squares in float64,
        relative accuracy 1e-13. The sum may over- or underflow for float64 entries beyond 1e+-150.
    """
    return backend_module("extent", weight.device.type, backend).measure(weight)
