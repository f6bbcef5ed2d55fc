"""Out of memory said in words: the libraries below have five ways of saying it, most of them a plain RuntimeError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spectrum_fast.errors import OutOfMemoryError

_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "not enough memory",
    "alloc_failed",
)
"""How torch's CPU allocator (a RuntimeError), the system and C++ put it, and cuBLAS and cuSOLVER (..._ALLOC_FAILED)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any library means that memory has run out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(word in str(error).lower() for word in _WORDS)


@contextmanager
def explain_memory() -> Iterator[None]:
    """Turn running out of memory into one clear error.

    Raises:
        OutOfMemoryError: it did.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            "memory has run out: a scan needs about four times its largest matrix in float32 beside the buffer; free "
            "some, or take a smaller buffer (--buffer-gib) or fewer threads (--threads). Finished modules are safe in "
            "the journal, if there is one: the same command goes on from there"
        ) from error
