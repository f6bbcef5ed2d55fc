"""The band reduction by the compiled kernels (kernels/band*): update and product fused in one sweep a panel.

Same signature and meaning as :func:`spectrum_fast.measure.ops.band.reduce_to_band`, which checks the arguments; the
extension checks them again at its border.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native


def reduce_to_band(matrix: Tensor, half_width: int) -> Tensor:
    """Reduce a symmetric matrix to band form.

    Args:
        matrix: (n, n) float32 or float64 on the CPU, contiguous; only the lower half is read, and today it survives
            (half of n² elements of scratch memory are used instead), but the contract allows its destruction.
        half_width: b >= 1.

    Returns:
        (n, b + 1), ``band[j, d] = B[j + d, j]``, zeros past the end. The same bits whenever the number of threads is
        the same.

    Raises:
        TypeError: neither float32 nor float64.
        ValueError: not square, empty or not contiguous.
    """
    band = torch.empty((matrix.shape[0], half_width + 1), dtype=matrix.dtype)
    _native.reduce_to_band(matrix.detach(), band)
    return band
