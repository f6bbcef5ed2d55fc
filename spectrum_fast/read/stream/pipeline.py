"""The machinery behind a stream: ring, files and reading threads."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from functools import partial

from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import RemoteFile, remote_settings
from spectrum_fast.read.stream.batch import Batch
from spectrum_fast.read.stream.device import pin_memory, require_cuda
from spectrum_fast.read.stream.layout import Layout, Task
from spectrum_fast.read.stream.open_files import OpenFiles
from spectrum_fast.read.stream.options import StreamOptions
from spectrum_fast.read.stream.ring import Ring


@dataclass
class StreamStatistics:
    """Counts of one stream so far.

    A scan keeps them, under these names, among what passed by in making it.

    Attributes:
        buffer_bytes: byte budget.
        buffer_peak_bytes: most of it that was ever given out; never more than the budget.
        bytes_from_storage: bytes read, gaps between tensors and further passes included.
        weights_in_blocks: weights that were read by blocks.
        reading_notes: what the reader should know, such as files that refused direct I/O.
    """

    buffer_bytes: int = 0
    buffer_peak_bytes: int = 0
    bytes_from_storage: int = 0
    weights_in_blocks: int = 0
    reading_notes: list[str] = field(default_factory=list)


class Pipeline:
    """Reads batches into the ring, which is page-locked if there is a device that they will be copied to.

    To be used by one consumer thread. Nothing in here refers to the stream that uses it, so a forgotten stream can go.

    Args:
        options: how to read.

    Raises:
        BackendUnavailableError: the device is not there, or memory cannot be page-locked for it.
    """

    def __init__(self, options: StreamOptions) -> None:
        self.options = options
        pin = None
        if options.device != "cpu":
            require_cuda(options.device)
            pin = partial(pin_memory, device=options.device)
        self.ring = Ring(options.capacity_bytes, poison=options.poison, pin=pin)
        self.statistics = StreamStatistics(buffer_bytes=self.ring.capacity_bytes)
        self._stop = threading.Event()
        self._files = OpenFiles(options.direct_io, self._stop)
        self._tasks: queue.SimpleQueue[tuple[Batch, Task] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_remote = False
        self._add_threads(options.thread_count)

    @property
    def direct(self) -> bool:
        """Whether batches are laid out for O_DIRECT."""
        return self.options.direct_io != "off"

    @property
    def window_bytes(self) -> int:
        """Bytes that may be read ahead, by what has been read so far: files of this machine, or one of another."""
        return self.options.window_bytes(remote=self._is_remote)

    def start(self, layout: Layout) -> Batch | None:
        """Begin to read; None if the ring has no room for it now. Without threads it is read when this returns."""
        region = self.ring.allocate(layout.nbytes)
        if region is None:
            return None
        batch = Batch(layout, region, self.ring, self._files, digests=self.options.digests)
        self._is_remote |= any(isinstance(address, RemoteFile) for address in layout.files)
        if self._threads and self._is_remote:  # each of them waits for the network
            self._add_threads(remote_settings().parts - len(self._threads))
        for task in layout.tasks:
            if self._threads:
                self._tasks.put((batch, task))
            else:
                batch.read(task, self._stop)
        self.statistics.buffer_peak_bytes = self.ring.peak_bytes
        return batch

    def dispose(self, batch: Batch) -> None:
        """Give everything of a batch back; waits for reads into it that are still under way."""
        if not batch.ready.is_set():
            batch.cancelled = True
            batch.ready.wait()
        self.statistics.bytes_from_storage += batch.read_bytes
        batch.release()

    def interrupt(self) -> None:
        """Break off reads that are under way, so that nobody waits for them; only :meth:`close` may follow."""
        self._stop.set()

    def close(self) -> None:
        """Stop all threads within a chunk and close all files."""
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self.statistics.reading_notes = list(self._files.notes)
        self._files.close()
        self.ring.close()

    def _add_threads(self, count: int) -> None:
        for _ in range(count):
            # Daemons, so that a stream that was never closed does not keep the interpreter alive.
            self._threads.append(threading.Thread(target=self._work, name="spectrum-fast-read", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while (taken := self._tasks.get()) is not None:
            batch, task = taken
            batch.read(task, self._stop)
            del taken, batch


def too_large(ref: TensorRef, needed: int, capacity: int) -> UsageError:
    """The error for a weight that does not fit the budget and cannot be read in parts."""
    return UsageError(
        f"{ref}: expected a buffer of at least {needed / 2**30:.4f} GiB, because its layout is decoded whole, found "
        f"{capacity / 2**30:.4f} GiB; give a larger --buffer-gib"
    )
