"""The Gram product by the compiled kernels (kernels/gram): half the flops, packed once, AMX to portable.

The lower half is computed and mirrored, to the same bits for any number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native
from spectrum_fast.measure.ops.border import passed
from spectrum_fast.measure.ops.memory import empty


def gram(weights: Tensor, *, out_dtype: torch.dtype = torch.float32, unrounded: bool = False) -> Tensor:
    """``W Wᵀ`` or ``Wᵀ W``, whichever is smaller, see :func:`spectrum_fast.measure.ops.gram.gram`."""
    size = min(weights.shape[1:])
    out = empty(len(weights), size, size, dtype=out_dtype)
    _native.gram(*passed(weights, out), unrounded=unrounded and out_dtype != weights.dtype)
    return out


def add_gram(blocks: Tensor, out: Tensor, *, unrounded: bool = False) -> None:
    """``out += A Aᵀ``, see :func:`spectrum_fast.measure.ops.gram.add_gram`."""
    _native.gram_add(*passed(blocks, out), unrounded=unrounded and out.dtype != blocks.dtype)


def update_gram(grams: Tensor, v: Tensor, z: Tensor) -> Tensor:
    """``G + V Zᵀ + Z Vᵀ``, see :func:`spectrum_fast.measure.ops.gram.update_gram`."""
    _native.gram_update(*passed(grams, v.contiguous(), z.contiguous()))
    count, size, _ = grams.shape
    return grams.flatten(1).view(torch.float32)[:, : size * size].view(count, size, size)
