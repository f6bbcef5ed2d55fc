"""One stretch of reads: a region of the ring, what goes into it, and what went wrong on the way."""

from __future__ import annotations

import ctypes
import hashlib
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address, Stamp, read_failure
from spectrum_fast.read.storage.files import changed, shorten
from spectrum_fast.read.stream.layout import Layout, Task, element_bytes
from spectrum_fast.read.stream.open_files import OpenFiles
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

    Threads call :meth:`read`, once for every task of the layout; the consumer waits for :attr:`ready` and then asks for
    :meth:`tensor`.

    Args:
        layout: what is read, and where it goes.
        region: memory of it; the batch gives it back.
        ring: where the region lies.
        files: where the open files are.
        digests: whether to hash each tensor once it is read.
    """

    def __init__(self, layout: Layout, region: Region, ring: Ring, files: OpenFiles, *, digests: bool = False) -> None:
        self.layout, self.region = layout, region
        self.read_seconds = 0.0
        self.read_bytes = 0
        self.cancelled = False
        self.ready = threading.Event()
        self._ring, self._files = ring, files
        self._lock = threading.Lock()
        self._open = {address: files.acquire(address) for address in layout.extents}
        self._stamps: dict[Address, Stamp] = {}
        self._failures: list[_Failure] = []
        self._shifts: dict[int, int] = {}  # place of an extent -> bytes that it was moved down
        self._left = len(layout.tasks)
        self._released = False
        self._digests: dict[TensorRef, bytes] | None = {} if digests else None
        if not layout.tasks:
            self.ready.set()

    def read(self, task: Task, is_stopped: threading.Event) -> None:
        """Read the pieces of one task; what cannot be read is recorded. With the last task the batch is ready."""
        started = time.perf_counter()
        total = 0
        for piece in task:
            if self._has_lost(piece.file):
                continue
            file, done = self._open[piece.file], 0
            try:
                while done < piece.needed and not self.cancelled:
                    if is_stopped.is_set():
                        self.cancelled = True
                        break
                    view = self._ring.view(self.region.begin + piece.place + done, piece.nbytes - done)
                    got = file.read_into(view, piece.offset + done, direct=piece.direct and done % PAGE_BYTES == 0)
                    if got == 0:
                        raise EndOfFileError
                    done += got
            except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread, in the tensor's turn
                end = math.inf if file.stored is None else piece.offset + piece.nbytes
                self._fail(piece.file, 0 if file.stored is None else piece.offset + done, end, error)
            total += done
        with self._lock:
            self.read_seconds += time.perf_counter() - started
            self.read_bytes += total
            self._left -= 1
            is_last = not self._left
        if is_last:
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
            raise changed(ref)

    def _has_lost(self, file: Address) -> bool:
        """Whether nothing more of this file can be had."""
        with self._lock:
            return any(failure.file == file and failure.end == math.inf for failure in self._failures)

    def _fail(self, file: Address, begin: int, end: float, error: BaseException) -> None:
        with self._lock:
            self._failures.append(_Failure(file, begin, end, error))

    def _failures_of(self, ref: TensorRef) -> list[_Failure]:
        """What kept bytes of a tensor from being read."""
        end = ref.begin + ref.nbytes
        return [one for one in self._failures if one.file == ref.file and one.begin < end and ref.begin < one.end]

    def _conclude(self) -> None:
        """After the last read: the files must be what they were, and the tensors must lie at whole elements."""
        opened = {address: file.stored for address, file in self._open.items() if file.stored is not None}
        self._stamps = {address: stored.stamp for address, stored in opened.items()}
        try:
            if self.cancelled:
                return
            for address, stored in opened.items():
                try:
                    stored.require_unchanged()
                except (CheckpointError, OSError) as error:
                    self._fail(address, 0, math.inf, error)
            self._align()
            if self._digests is not None:
                for ref in dict.fromkeys(self.layout.refs):
                    if self._failures_of(ref):
                        continue  # it will not be handed out; what else the batch holds will
                    begin = self.region.begin + self.place_of(ref) if ref.nbytes else 0
                    self._digests[ref] = hashlib.sha256(self._ring.view(begin, ref.nbytes)).digest()
        finally:
            for file in self._open.values():
                self._files.release(file)
            self._open.clear()
            self.ready.set()

    def _align(self) -> None:
        """Move extents that O_DIRECT put page for page to where their elements are aligned; always downwards."""
        base = self._ring.bytes.data_ptr() + self.region.begin
        for extent in chain.from_iterable(self.layout.extents.values()):
            if not extent.pad % _CACHE_LINE:
                continue
            inside = [ref for ref in self.layout.refs if ref.nbytes and self.layout.extent_of(ref) is extent]
            if any((extent.place + ref.begin - extent.begin) % element_bytes(ref) for ref in inside):
                shift = extent.pad % _CACHE_LINE
                begin = base + extent.place
                ctypes.memmove(begin - shift, begin, extent.end - extent.begin)
                self._shifts[extent.place] = shift


def _explain(failure: _Failure, ref: TensorRef) -> BaseException:
    """The error to raise for one tensor."""
    error = failure.error
    if isinstance(error, EndOfFileError):
        found = CheckpointError(
            f"{ref}: expected {ref.nbytes} bytes, the file ends after {max(0, failure.begin - ref.begin)}: truncated "
            "or replaced while being read; download it again"
        )
    elif isinstance(error, OSError):
        found = CheckpointError(f"{ref}: cannot be read at byte {failure.begin}: {read_failure(error)}")
    elif isinstance(error, CheckpointError):
        found = CheckpointError(f"tensor {shorten(ref.name)}: {error}")
    else:
        return error
    found.__cause__ = error
    return found
