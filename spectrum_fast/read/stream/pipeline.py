"""The machinery behind a stream: ring, files and reading threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import RemoteFile, remote_settings
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.read.stream.batch import Batch
from spectrum_fast.read.stream.device import pin_memory, require_cuda
from spectrum_fast.read.stream.layout import Layout, Task
from spectrum_fast.read.stream.open_files import OpenFiles
from spectrum_fast.read.stream.options import StreamOptions
from spectrum_fast.read.stream.readers import Readers
from spectrum_fast.read.stream.ring import Ring
from spectrum_fast.read.stream.statistics import StreamStatistics


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
        self.ring = Ring(options.capacity_bytes, poison=options.poisons, pin=pin)
        self.statistics = StreamStatistics(capacity_bytes=self.ring.capacity_bytes)
        self._stop = threading.Event()
        self._files = OpenFiles(options.direct_io, self._stop)
        self._readers = Readers(options.thread_count, self._stop)
        self._closed = False

    @property
    def direct(self) -> bool:
        """Whether batches are laid out for O_DIRECT."""
        return self.options.direct_io != "off"

    def start(self, refs: Sequence[TensorRef], layout: Layout, tasks: Sequence[Task]) -> Batch | None:
        """Begin to read; None if the ring has no room for it now."""
        region = self.ring.allocate(layout.nbytes)
        if region is None:
            return None
        batch = Batch(refs, layout, tasks, region, self.ring, self._files, digests=self.options.digests)
        if any(isinstance(ref.file, RemoteFile) for ref in refs):
            self._readers.widen(remote_settings().parts_in_flight)  # each of them waits for the network
        self._readers.submit(batch)
        if not tasks:
            batch.ready.set()
        self.statistics.batches += 1
        self.statistics.peak_buffer_bytes = self.ring.peak_bytes
        return batch

    def await_batch(self, batch: Batch) -> float:
        """Wait until a batch can be used; returns the seconds waited."""
        started = time.perf_counter()
        batch.ready.wait()
        waited = time.perf_counter() - started
        self.statistics.wait_seconds += waited
        self.statistics.read_seconds += batch.read_seconds
        self.statistics.read_bytes += batch.read_bytes
        return waited

    def dispose(self, batch: Batch) -> None:
        """Give everything of a batch back; waits for reads into it that are still under way."""
        if not batch.ready.is_set():
            batch.cancelled = True
            batch.ready.wait()
        batch.release()

    def interrupt(self) -> None:
        """Break off reads that are under way, so that nobody waits for them; only :meth:`close` may follow."""
        self._stop.set()

    def close(self) -> None:
        """Stop all threads within a chunk and close all files."""
        if self._closed:
            return
        self._closed = True
        self._readers.close()
        self.statistics.notes = list(self._files.refusals)
        self._files.close()
        self.ring.close()


def too_large(ref: TensorRef, needed: int, capacity: int) -> UsageError:
    """The error for a weight that does not fit the budget and cannot be read in parts."""
    return UsageError(
        f"tensor {shorten(ref.name)} in {ref.file}: expected a buffer of at least {needed / 2**30:.4f} GiB, because "
        f"its layout is decoded whole, found {capacity / 2**30:.4f} GiB; give a larger --buffer-gib"
    )
