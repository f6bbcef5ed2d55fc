"""The Gram product by the compiled kernels (kernels/gemm*): half the flops, packed once, AMX to portable.

Same signature and meaning as :func:`spectrum_fast.measure.ops.gram.gram`, which checks the arguments; the extension
checks them again at its border.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native


def gram(weight: Tensor, *, out_dtype: torch.dtype = torch.float32) -> Tensor:
    """Form ``W Wᵀ`` or ``Wᵀ W``, whichever is smaller: the lower half is computed and mirrored.

    Args:
        weight: (m, n) float64, float32, float16 or bfloat16 on the CPU, any strides.
        out_dtype: float32 or float64 (float64 for a float64 weight).

    Returns:
        (k, k) in ``out_dtype``, k = min(m, n). The same bits for any number of threads.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: not a matrix, or an empty one.
    """
    size = min(weight.shape)
    out = torch.empty((size, size), dtype=out_dtype)
    _native.gram(weight.detach(), out)
    return out


def add_gram(block: Tensor, out: Tensor) -> None:
    """``out += A Aᵀ``, see :func:`spectrum_fast.measure.ops.gram.add_gram`."""
    _native.gram_add(block.detach(), out)
