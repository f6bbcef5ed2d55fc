"""Largest absolute entry and sum of squares of each matrix of a batch, in one pass over its bytes."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module, check_weights


def measure(weights: Tensor) -> Tensor:
    """``max |w|`` and ``sum w^2`` of each matrix.

    Args:
        weights: (m, r, c), float64, float32, float16 or bfloat16, r c >= 1; a matrix that is not contiguous is copied
            on a CPU, and on a GPU if its rows are not.

    Returns:
        (m, 2) float64 on the weights' device: the largest absolute entry (NaN or infinity if the matrix holds one) and
        the sum of squares, relative accuracy 1e-13. The sum may over- or underflow for float64 entries beyond 1e+-150.

    Raises:
        TypeError: another dtype.
        ValueError: not a batch of matrices, or empty ones.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    check_weights(weights)
    return backend_module("extent", weights.device.type).measure(weights.detach())
