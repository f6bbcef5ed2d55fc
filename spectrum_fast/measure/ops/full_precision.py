"""Products of float32 matrices in float32, whatever the program around has allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_EXACT = ("ieee", "none")
"""Settings under which a float32 product is one; unset means that."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 (CUDA) and bfloat16 (CPUs that have it) off for float32 products, and restore what was set.

    Trainers allow them for speed, process-wide; a scan inside a training run would compute with 11 or 8 bits and state
    error bounds of 24. Also a decorator. The setting belongs to the process: products of other threads are exact, too,
    while it lasts.
    """
    # By the settings that replace ``allow_tf32`` and ``set_float32_matmul_precision``: reading the old ones raises
    # where somebody used the new ones.
    both: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    backends = [backend for backend in both if hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in backends]
    for backend, found in zip(backends, before, strict=True):
        if found not in _EXACT:
            backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, found in zip(backends, before, strict=True):
            if found not in _EXACT:
                backend.fp32_precision = found
