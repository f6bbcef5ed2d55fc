"""The Gram product in torch: the readable form, on any device.

Same signature and meaning as :func:`spectrum_fast.measure.ops.gram.gram`, which checks the arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gram(weight: Tensor, *, out_dtype: torch.dtype = torch.float32) -> Tensor:
    """Form ``W Wᵀ`` or ``Wᵀ W``, whichever is smaller, by one full product in ``out_dtype``.

    Args:
        weight: (m, n), any real floating dtype; converted to ``out_dtype`` before it is multiplied, because a product
            of half-precision tensors would be rounded to half precision.
        out_dtype: float32 or float64.

    Returns:
        (k, k) in ``out_dtype``, k = min(m, n).
    """
    wide = weight.detach().to(out_dtype)
    return wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide


def add_gram(block: Tensor, out: Tensor) -> None:
    """``out += A Aᵀ``, see :func:`spectrum_fast.measure.ops.gram.add_gram`."""
    wide = block.detach().to(out.dtype)
    out.addmm_(wide, wide.T)
