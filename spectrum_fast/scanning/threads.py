"""How many processors a scan computes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spectrum_fast.measure.ops.dispatch import set_threads


@contextmanager
def thread_count(threads: int | None) -> Iterator[int]:
    """Compute on this many CPU threads, and on as many as before afterwards; gives the number in use."""
    if threads is None:
        yield torch.get_num_threads()
        return
    before = torch.get_num_threads()
    set_threads(threads)
    try:
        yield threads
    finally:
        set_threads(before)
