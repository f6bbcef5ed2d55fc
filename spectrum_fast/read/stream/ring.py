"""The memory that everything is read into: one arena, mapped once, whose regions are used again and again.

A region is given to one stretch of reads and comes back when the consumer is done with what was read. The arena has a
fixed size, so the budget cannot be passed; its lowest free place is taken first, so that memory that is not needed is
never touched, and what is needed stays in the caches. For a GPU the whole arena is page-locked once.

Debug mode: with poison on, every released byte is overwritten by 0xFF, which reads as NaN in every floating-point
format (float64 to FP8, and as the NaN scale of MXFP4), so that a use after release shows.
"""

from __future__ import annotations

import mmap
import threading
from bisect import insort
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

PAGE_BYTES = 4096
"""Regions begin and end on multiples of this, which O_DIRECT wants of memory, lengths and file offsets."""
POISON = 0xFF


@dataclass(frozen=True)
class Region:
    """Part of the arena: ``nbytes`` bytes from ``begin`` on."""

    begin: int
    nbytes: int


class Ring:
    """A byte budget and the memory behind it; safe to use from several threads.

    Args:
        capacity_bytes: size of the arena, rounded down to whole pages.
        poison: overwrite memory when it is given out and when it comes back.
        pin: page-locks ``(address, nbytes)`` and returns what undoes it, see
            :func:`spectrum_fast.read.stream.device.pin_memory`; None leaves the memory pageable.
    """

    def __init__(
        self, capacity_bytes: int, *, poison: bool = False, pin: Callable[[int, int], Callable[[], None]] | None = None
    ) -> None:
        self.capacity_bytes = capacity_bytes // PAGE_BYTES * PAGE_BYTES
        self.peak_bytes = 0
        self._poison = poison
        self._lock = threading.Lock()
        self._taken: list[Region] = []  # sorted by begin
        self._memory = mmap.mmap(-1, self.capacity_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if pin is not None and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a million small pages would be locked one by one
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        # Else no MADV_HUGEPAGE: reading into memory that was touched before is as fast with small pages, and the first
        # touch of 256 MB took 0.24 s with them, but 0.08 to 0.86 s with huge ones (virtual machine, two cores).
        self.bytes: Tensor = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._view = memoryview(self._memory)
        self._unpin = pin(self.bytes.data_ptr(), self.capacity_bytes) if pin is not None else None

    @property
    def in_use_bytes(self) -> int:
        """Bytes given out and not yet come back."""
        with self._lock:
            return sum(region.nbytes for region in self._taken)

    def allocate(self, nbytes: int) -> Region | None:
        """The lowest free region of at least ``nbytes``, in whole pages; None while there is none."""
        size = max(PAGE_BYTES, -(-nbytes // PAGE_BYTES) * PAGE_BYTES)
        with self._lock:
            begin = 0
            for taken in self._taken:
                if taken.begin - begin >= size:
                    break
                begin = taken.begin + taken.nbytes
            if begin + size > self.capacity_bytes:
                return None
            region = Region(begin, size)
            insort(self._taken, region, key=lambda taken: taken.begin)
            self.peak_bytes = max(self.peak_bytes, sum(taken.nbytes for taken in self._taken))
        self.poison(region.begin, region.nbytes)
        return region

    def release(self, region: Region) -> None:
        """Take a region back; whatever still looks at it sees poison (debug mode) or later data."""
        self.poison(region.begin, region.nbytes)
        with self._lock:
            self._taken.remove(region)

    def poison(self, begin: int, nbytes: int) -> None:
        """Overwrite bytes that nobody may look at any more, in debug mode; else nothing."""
        if self._poison:
            self.bytes[begin : begin + nbytes].fill_(POISON)

    def view(self, begin: int, nbytes: int) -> memoryview:
        """Writable bytes of the arena, to read into."""
        return self._view[begin : begin + nbytes]

    def close(self) -> None:
        """Undo the page-locking. The memory itself goes with the last tensor that looks at it."""
        if self._unpin is not None:
            self._unpin()
            self._unpin = None
