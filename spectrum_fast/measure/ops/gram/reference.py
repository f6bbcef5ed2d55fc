"""The Gram product in torch: the readable form, on any device.

Operands are converted to the result's type before they are multiplied, because a product of half-precision tensors
would be rounded to half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 256
"""That are updated at a time: what is computed in float64 beside the result stays small."""


def gram(weights: Tensor, *, out_dtype: torch.dtype = torch.float32, unrounded: bool = False) -> Tensor:  # noqa: ARG001
    """``W Wᵀ`` or ``Wᵀ W``, whichever is smaller, by one full product in the result's type."""
    wide = weights.to(out_dtype)
    return wide @ wide.mT if wide.shape[1] <= wide.shape[2] else wide.mT @ wide


def add_gram(blocks: Tensor, out: Tensor, *, unrounded: bool = False) -> None:  # noqa: ARG001
    """``out += A Aᵀ``."""
    wide = blocks.to(out.dtype)
    out.baddbmm_(wide, wide.mT)


def update_gram(grams: Tensor, v: Tensor, z: Tensor) -> Tensor:
    """``G + V Zᵀ + Z Vᵀ``, rounded to float32."""
    left, right = torch.cat([v, z], 2), torch.cat([z, v], 2).mT
    updated = torch.empty_like(grams, dtype=torch.float32)
    for begin in range(0, grams.shape[1], _ROWS):
        rows = slice(begin, begin + _ROWS)
        updated[:, rows] = torch.baddbmm(grams[:, rows], left[:, rows], right)
    return updated
