"""Measured rates that a stage cannot beat on this machine: dense matrix products and reading a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from spectrum_fast.measure.ops.gram import gram


def gemm_flops_per_second(n: int, dtype: torch.dtype = torch.float32, rounds: int = 3) -> float:
    """Rate of ``torch.mm`` on n x n matrices, from the best of a few rounds after one that is not counted.

    Args:
        n: side of both factors.
        dtype: their type (a bfloat16 result is rounded: a rate to compare with, not a usable Gram matrix).
        rounds: rounds that count.

    Returns:
        Floating-point operations per second, a multiply-add counted as two.
    """
    left, right = torch.randn(2, n, n).to(dtype).unbind()
    return 2.0 * n**3 / best_seconds(lambda: torch.mm(left, right), rounds)


def gram_flops_per_second(n: int, dtype: torch.dtype = torch.float32, rounds: int = 3) -> float:
    """Rate of our own symmetric product on an n x n matrix, counting only its half: n² (n + 1) operations."""
    weight = torch.randn(1, n, n).to(dtype)
    return float(n) * n * (n + 1) / best_seconds(lambda: gram(weight), rounds)


def best_seconds(call: Callable[[], object], rounds: int) -> float:
    """Fewest seconds of a call (a floor is the best that was seen), after one round that is not counted."""
    seconds = []
    for index in range(rounds + 1):
        start = time.perf_counter()
        call()
        if index:
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def read_seconds(files: Sequence[Path], *, cold: bool, chunk_bytes: int = 1 << 24) -> float:
    """Seconds to read files from start to end, one after the other.

    Args:
        files: what to read.
        cold: drop the files from the page cache first (``posix_fadvise``); the disk and its own cache stay as they are.
        chunk_bytes: size of one read.
    """
    if cold:
        drop_from_cache(files)
    buffer = bytearray(chunk_bytes)
    start = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def drop_from_cache(files: Sequence[Path]) -> None:
    """Ask the kernel to forget the cached pages of these files; dirty pages are written out first."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
