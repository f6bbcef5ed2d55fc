"""Products of float32 matrices in float32, whatever the program around has allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_EXACT = ("ieee", "none")
"""Settings under which a float32 product is one; unset means that."""


_lock = threading.Lock()
_inside = 0
_found: list[tuple[Any, str]] = []
"""How many calls are inside, and what was set before the first of them."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 (CUDA) and bfloat16 (CPUs that have it) off for float32 products, and restore what was set.

    Trainers allow them for speed, process-wide; a scan inside a training run would compute with 11 or 8 bits and state
    error bounds of 24. Also a decorator. The setting belongs to the process: products of other threads are exact, too,
    while it lasts, which is until the last thread has left.
    """
    global _inside
    with _lock:
        if not _inside:
            _found[:] = _set_exact()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            for backend, found in () if _inside else _found:
                backend.fp32_precision = found


def _set_exact() -> list[tuple[Any, str]]:
    """What was set otherwise, and where.

    By the settings that replace ``allow_tf32`` and ``set_float32_matmul_precision``: reading the old ones raises where
    somebody used the new ones.
    """
    both: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    settings = [(backend, backend.fp32_precision) for backend in both if hasattr(backend, "fp32_precision")]
    changed = [(backend, found) for backend, found in settings if found not in _EXACT]
    for backend, _ in changed:
        backend.fp32_precision = "ieee"
    return changed
