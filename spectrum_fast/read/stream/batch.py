"""One stretch of reads: a region of the ring, what goes into it, and what went wrong on the way."""

from __future__ import annotations

import ctypes
import hashlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address, Stamp, read_failure
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.read.stream.layout import Layout, Task, element_bytes
from spectrum_fast.read.stream.open_files import OpenFile, OpenFiles
from spectrum_fast.read.stream.ring import PAGE_BYTES, Region, Ring

_CACHE_LINE = 64


class EndOfFileError(Exception):
    """The file ends before the tensor does."""


@dataclass(frozen=True)
class _Failure:
    """Why the bytes of ``file`` from ``begin`` to ``end`` are not there."""

    file: Address
    begin: int
    end: float
    error: BaseException


class Batch:
    """Tensors that are read together and given back together.

    Reading threads call :meth:`open`, :meth:`view`, :meth:`fail` and, once for every task, :meth:`finish`; the consumer
    waits for :attr:`ready` and then asks for :meth:`tensor`.

    Args:
        refs: what is read.
        layout: where it goes.
        tasks: the reads; at least one.
        region: memory of it; the batch gives it back.
        ring: where the region lies.
        files: where the open files are.
        digests: whether to hash each tensor once it is read.
    """

    def __init__(
        self,
        refs: Sequence[TensorRef],
        layout: Layout,
        tasks: Sequence[Task],
        region: Region,
        ring: Ring,
        files: OpenFiles,
        *,
        digests: bool = False,
    ) -> None:
        self.layout, self.tasks, self.region = layout, tasks, region
        self.read_seconds = 0.0
        self.read_bytes = 0
        self.cancelled = False
        self.ready = threading.Event()
        self._refs, self._ring, self._files = refs, ring, files
        self._lock = threading.Lock()
        self._open: dict[Address, OpenFile] = {}
        self._stamps: dict[Address, Stamp] = {}
        self._failures: list[_Failure] = []
        self._shifts: dict[int, int] = {}  # place of an extent -> bytes that it was moved down
        self._left = len(tasks)
        self._released = False
        self._digests: dict[TensorRef, bytes] | None = {} if digests else None

    def open(self, address: Address) -> OpenFile:
        """An open file, held until the batch is read."""
        with self._lock:
            if address in self._open:
                return self._open[address]
        file = self._files.acquire(address)
        with self._lock:
            if address not in self._open:
                self._open[address] = file
                return file
        self._files.release(address)
        return file

    def view(self, place: int, nbytes: int) -> memoryview:
        """Writable bytes of the region."""
        return self._ring.view(self.region.begin + place, nbytes)

    def has_lost(self, file: Address) -> bool:
        """Whether nothing more of this file can be had."""
        with self._lock:
            return any(failure.file == file and failure.end == math.inf for failure in self._failures)

    def fail(self, file: Address, begin: int, end: float, error: BaseException) -> None:
        """Record that bytes ``begin`` to ``end`` of a file (infinity: the whole file) could not be had."""
        with self._lock:
            self._failures.append(_Failure(file, begin, end, error))

    def finish(self, seconds: float, nbytes: int) -> None:
        """Count one task as done; with the last one the batch is ready."""
        with self._lock:
            self.read_seconds += seconds
            self.read_bytes += nbytes
            self._left -= 1
            if self._left:
                return
        self._conclude()

    def tensor(self, ref: TensorRef, dtype: torch.dtype) -> Tensor:
        """A tensor of the batch: a view of the region.

        Only a tensor whose place is no multiple of its element size (after another one of odd length, in one extent) is
        copied.
        """
        if ref.nbytes == 0:
            return torch.empty(ref.shape, dtype=dtype)
        place = self.place_of(ref)
        begin = self.region.begin + place
        raw = self._ring.bytes[begin : begin + ref.nbytes]
        if place % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).reshape(ref.shape)

    def place_of(self, ref: TensorRef) -> int:
        """Offset in the region of the first byte of a tensor."""
        extent = self.layout.extent_of(ref)
        return extent.place - self._shifts.get(extent.place, 0) + ref.begin - extent.begin

    def digest(self, ref: TensorRef) -> bytes:
        """SHA-256 of a tensor's stored bytes, as they were read; empty unless the batch was asked for digests."""
        return (self._digests or {}).get(ref, b"")

    def poison(self, ref: TensorRef, still_needed: Sequence[TensorRef]) -> None:
        """Overwrite one tensor in debug mode, unless another one shares bytes with it; the region stays taken."""
        shared = any(
            other.file == ref.file and other.begin < ref.begin + ref.nbytes and ref.begin < other.begin + other.nbytes
            for other in still_needed
        )
        if ref.nbytes and not shared and not self._released:
            self._ring.poison(self.region.begin + self.place_of(ref), ref.nbytes)

    def release(self) -> None:
        """Give the region back; a second call does nothing. Nothing may be reading into it any more."""
        with self._lock:
            if self._released:
                return
            self._released = True
        self._ring.release(self.region)

    def require_read(self, ref: TensorRef) -> None:
        """Make sure that a tensor is there, whole and from the file that the header came from.

        Raises:
            CheckpointError: it is not; the message names tensor and file.
        """
        with self._lock:
            failures = self._failures_of(ref)
            stamp = self._stamps.get(ref.file)
        if failures:
            raise _explain(min(failures, key=lambda failure: (failure.end, failure.begin)), ref)
        if ref.stamp is not None and stamp is not None and stamp != ref.stamp:
            raise CheckpointError(
                f"tensor {shorten(ref.name)} in {ref.file}: the file was truncated or replaced while being read; scan "
                "again when nothing writes to it"
            )

    def _failures_of(self, ref: TensorRef) -> list[_Failure]:
        """What kept bytes of a tensor from being read."""
        end = ref.begin + ref.nbytes
        return [one for one in self._failures if one.file == ref.file and one.begin < end and ref.begin < one.end]

    def _conclude(self) -> None:
        """After the last read: the files must be what they were, and the tensors must lie at whole elements."""
        self._stamps = {address: file.stored.stamp for address, file in self._open.items()}
        try:
            for address, file in self._open.items():
                try:
                    if not self.cancelled:
                        file.stored.require_unchanged()
                except (CheckpointError, OSError) as error:
                    self.fail(address, 0, math.inf, error)
            if not self.cancelled:
                self._align()
            if self._digests is not None and not self.cancelled:
                for ref in dict.fromkeys(self._refs):
                    if self._failures_of(ref):
                        continue  # it will not be handed out; what else the batch holds will
                    content = self.view(self.place_of(ref), ref.nbytes) if ref.nbytes else b""
                    self._digests[ref] = hashlib.sha256(content).digest()
        finally:
            for address in self._open:
                self._files.release(address)
            self._open.clear()
            self.ready.set()

    def _align(self) -> None:
        """Move extents that O_DIRECT put page for page to where their elements are aligned; always downwards."""
        base = self._ring.bytes.data_ptr() + self.region.begin
        for extent in self.layout.extents:
            if not extent.direct or not extent.pad % _CACHE_LINE:
                continue
            inside = [ref for ref in self._refs if ref.nbytes and self.layout.extent_of(ref) is extent]
            if any((extent.place + ref.begin - extent.begin) % element_bytes(ref) for ref in inside):
                shift = extent.pad % _CACHE_LINE
                begin = base + extent.place
                ctypes.memmove(begin - shift, begin, extent.end - extent.begin)
                self._shifts[extent.place] = shift


def read_task(batch: Batch, task: Task, is_stopped: threading.Event) -> int:
    """Read the pieces of one task; what cannot be read is recorded in the batch. Returns the bytes that were read."""
    total = 0
    for piece in task:
        if is_stopped.is_set() or batch.cancelled:
            batch.cancelled = True
            return total
        if batch.has_lost(piece.file):
            continue
        try:
            file = batch.open(piece.file)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread, in the tensor's turn
            batch.fail(piece.file, 0, math.inf, error)
            continue
        done = 0
        try:
            while done < piece.needed and not is_stopped.is_set():
                view = batch.view(piece.place + done, piece.nbytes - done)
                got = file.read_into(view, piece.offset + done, direct=piece.direct and done % PAGE_BYTES == 0)
                if got == 0:
                    raise EndOfFileError
                done += got
        except BaseException as error:  # noqa: BLE001 - likewise
            batch.fail(piece.file, piece.offset + done, piece.offset + piece.nbytes, error)
        if is_stopped.is_set():
            batch.cancelled = True
        total += done
    return total


def _explain(failure: _Failure, ref: TensorRef) -> BaseException:
    """The error to raise for one tensor."""
    error = failure.error
    if isinstance(error, EndOfFileError):
        found = CheckpointError(
            f"tensor {shorten(ref.name)} in {ref.file}: expected {ref.nbytes} bytes, the file ends after "
            f"{max(0, failure.begin - ref.begin)}: truncated or replaced while being read; download it again"
        )
    elif isinstance(error, OSError):
        found = CheckpointError(
            f"tensor {shorten(ref.name)} in {ref.file}: cannot be read at byte {failure.begin}: {read_failure(error)}"
        )
    elif isinstance(error, CheckpointError):
        found = CheckpointError(f"tensor {shorten(ref.name)}: {error}")
    else:
        return error
    found.__cause__ = error
    return found
