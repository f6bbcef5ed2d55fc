"""How a stream reads: its byte budget, its threads, its way to the files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from spectrum_fast.errors import UsageError
from spectrum_fast.read.stream.digests import together
from spectrum_fast.system import memory_bytes, usable_cores

DIRECT_IO = ("off", "auto", "on")
"""``off``: through the page cache. ``on``: past it (O_DIRECT), or an error. ``auto``: past it where that works."""

MINIMUM_BUFFER_BYTES = 1 << 20
AUTO_BUFFER_BYTES = 2 << 30
"""Budget where none is given, at most: it holds the largest matrix of most models whole. Touched only as needed."""
AUTO_BUFFER_SHARE = 8
"""Nor more than this part of the memory of the machine."""
AUTO_WINDOW_BYTES = 96 << 20
"""Bytes read ahead where no budget is given: deep enough to hide a disk and for eight requests to a server beside the
stretch in use, small enough to stay small."""
LOCAL_WINDOW_SHARE = 3
"""Of files of this machine one part in this many: as much as four threads ask for at a time. The kernel reads on ahead
of them, and the ring's pages are new in every scan: to touch 96 MiB of them takes 2 % of SmolLM2-135M's 0.9 s. But
all of it where tensors are hashed in the lanes of vectors, most of which 8 MiB at a time leave empty (8 %, Skylake)."""
READING_THREADS = 4
"""Where their number is not given, whatever the processors: they wait for the disk, or copy in turns from the page
cache, which two of them do no faster than four."""
DEVICE_BUFFER_BYTES = 4 << 30
DEVICE_READING_THREADS = (8, 12)
"""For a GPU, which computes faster than four threads read and hash: at least and at most, by the processors there are.
Its window is the whole buffer, from which bytes go as soon as the device has them."""


@dataclass(frozen=True)
class StreamOptions:
    """Options of a stream; see docs/streaming.md.

    Attributes:
        buffer_bytes: budget of the ring, a hard limit; None for :data:`AUTO_BUFFER_BYTES` (for a GPU,
            :data:`DEVICE_BUFFER_BYTES`) or an eighth of the memory.
        direct_io: one of :data:`DIRECT_IO`.
        threads: reading threads; 0 reads in the caller's thread, None chooses.
        device: where weights go from here, ``cpu`` or ``cuda[:n]``: they are handed out in memory of the host, which
            for a GPU is page-locked, and the blocks of a matrix on the device itself.
        digests: hash what is read, by the reading threads, for :attr:`LoadedWeight.digest`.
        poison: overwrite released memory; else the environment is asked (``SPECTRUM_FAST_POISON=1``).
    """

    buffer_bytes: int | None = None
    direct_io: str = "off"
    threads: int | None = None
    device: str = "cpu"
    digests: bool = False
    poison: bool = field(default_factory=lambda: os.environ.get("SPECTRUM_FAST_POISON") == "1")

    def __post_init__(self) -> None:
        if self.buffer_bytes is not None and self.buffer_bytes < MINIMUM_BUFFER_BYTES:
            raise UsageError(
                f"buffer_gib: expected at least {MINIMUM_BUFFER_BYTES / 2**30:.4f} ({MINIMUM_BUFFER_BYTES} bytes), "
                f"found {self.buffer_bytes} bytes"
            )
        if self.direct_io not in DIRECT_IO:
            raise UsageError(f"unknown direct_io {self.direct_io!r}: expected one of {', '.join(DIRECT_IO)}")

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the ring may hold, whatever the model."""
        if self.buffer_bytes is not None:
            return self.buffer_bytes
        most = AUTO_BUFFER_BYTES if self.device == "cpu" else DEVICE_BUFFER_BYTES
        return max(MINIMUM_BUFFER_BYTES, min(most, memory_bytes() // AUTO_BUFFER_SHARE))

    def window_bytes(self, *, remote: bool) -> int:
        """Bytes that may be read ahead, of files of this machine or of others.

        One stretch beside the one in use always may.
        """
        if self.buffer_bytes is not None or self.device != "cpu":
            return self.capacity_bytes
        for_lanes = self.digests and together() > 2
        return AUTO_WINDOW_BYTES if remote or for_lanes else AUTO_WINDOW_BYTES // LOCAL_WINDOW_SHARE

    @property
    def thread_count(self) -> int:
        """Reading threads."""
        if self.threads is not None:
            return self.threads
        if self.device == "cpu":
            return READING_THREADS
        least, most = DEVICE_READING_THREADS
        return max(least, min(most, usable_cores()))
