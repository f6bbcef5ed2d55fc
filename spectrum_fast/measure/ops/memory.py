"""Memory of what the compiled kernels write."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectrum_fast import _native


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """A contiguous CPU tensor of any content, as ``torch.empty`` gives one.

    Large ones come from the kernels' pool (``kernels/cpu/pool.hpp``) and return to it when they die: a Gram matrix of
    4096 x 4096 float32 takes 5 ms of page faults for every weight otherwise.

    Raises:
        MemoryError: there is not as much.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _native.POOLED_BYTES:
        return torch.empty(shape, dtype=dtype)
    return _native.allocate(size).view(dtype).view(shape)
