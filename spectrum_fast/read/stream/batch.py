"""One stretch of reads: a region of the ring, what goes into it, and what went wrong on the way."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address, Stamp, read_failure
from spectrum_fast.read.storage.files import changed, shorten
from spectrum_fast.read.stream.digests import digests_of
from spectrum_fast.read.stream.layout import Layout, Task
from spectrum_fast.read.stream.open_files import OpenFiles
from spectrum_fast.read.stream.ring import PAGE_BYTES, Region, Ring


@dataclass(frozen=True)
class _Failure:
    """Why the bytes of ``file`` from ``begin`` to ``end`` are not there."""

    file: Address
    begin: int
    end: float
    error: BaseException


class Batch:
    """Tensors that are read together and given back together.

    Threads call :meth:`read`, once for every task of the layout; the consumer calls :meth:`await_read` and then asks
    for :meth:`tensor`.

    Args:
        layout: what is read, and where it goes.
        region: memory of it; the batch gives it back.
        ring: where the region lies.
        files: where the open files are.
        digests: whether to hash each tensor once it is read.

    Attributes:
        digests: SHA-256 of the stored bytes of each tensor, as they were read, where that was asked for.
    """

    def __init__(self, layout: Layout, region: Region, ring: Ring, files: OpenFiles, *, digests: bool = False) -> None:
        self.layout, self.region = layout, region
        self.read_seconds = 0.0
        self.read_bytes = 0
        self.cancelled = False
        self.digests: dict[TensorRef, bytes] = {}
        self.ready = threading.Event()
        self._ring, self._files = ring, files
        self._lock = threading.Lock()
        self._open = {address: files.acquire(address) for address in layout.files}
        self._stamps: dict[Address, Stamp] = {}
        self._failures: list[_Failure] = []
        self._left = len(layout.tasks)
        self._hashes = digests
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
                    direct = self.layout.direct and done % PAGE_BYTES == 0
                    got = file.read_into(view, piece.offset + done, direct=direct)
                    if got == 0:
                        raise EOFError
                    done += got
            except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread, in the tensor's turn
                begin, end = piece.offset + done, piece.offset + piece.nbytes
                lost = (begin, end) if file.stored is not None else (0, math.inf)  # all of what cannot be opened
                self._failures.append(_Failure(piece.file, *lost, error))
            total += done
        with self._lock:
            self.read_seconds += time.perf_counter() - started
            self.read_bytes += total
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._conclude()

    def await_read(self, refs: Iterable[TensorRef]) -> None:
        """Wait until tensors are there, whole and from the files that their headers came from.

        Raises:
            CheckpointError: one is not; the message names tensor and file.
        """
        self.ready.wait()
        for ref in refs:
            if failures := self._failures_of(ref):
                raise _explain(min(failures, key=lambda failure: (failure.end, failure.begin)), ref)
            if ref.stamp is not None and self._stamps.get(ref.file, ref.stamp) != ref.stamp:
                raise changed(ref)

    def tensor(self, ref: TensorRef, dtype: torch.dtype) -> Tensor:
        """A tensor of the batch: a view of the region.

        Only a tensor whose place is no multiple of its element size (as one that follows another of odd length, or
        stands so in its file and is read page for page) is copied.
        """
        begin = self._begin_of(ref)
        raw = self._ring.bytes[begin : begin + ref.nbytes]
        if begin % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).reshape(ref.shape)

    def poison(self, ref: TensorRef, still_needed: Sequence[TensorRef]) -> None:
        """Overwrite one tensor in debug mode, unless another one shares bytes with it; the region stays taken."""
        shared = any(
            other.file == ref.file and other.begin < ref.begin + ref.nbytes and ref.begin < other.begin + other.nbytes
            for other in still_needed
        )
        if not shared:
            self._ring.poison(self._begin_of(ref), ref.nbytes)

    def release(self) -> None:
        """Give the region back; nothing may be reading into it any more."""
        self._ring.release(self.region)

    def _begin_of(self, ref: TensorRef) -> int:
        """Offset in the ring of the first byte of a tensor, if it has any."""
        return self.region.begin + self.layout.places.get(ref, 0)

    def _has_lost(self, file: Address) -> bool:
        """Whether nothing more of this file can be had."""
        return any(failure.file == file and failure.end == math.inf for failure in self._failures)

    def _failures_of(self, ref: TensorRef) -> list[_Failure]:
        """What kept bytes of a tensor from being read."""
        end = ref.begin + ref.nbytes
        return [one for one in self._failures if one.file == ref.file and one.begin < end and ref.begin < one.end]

    def _conclude(self) -> None:
        """After the last read: the files must be what they were."""
        opened = {address: file.stored for address, file in self._open.items() if file.stored is not None}
        self._stamps = {address: stored.stamp for address, stored in opened.items()}
        try:
            if self.cancelled:
                return
            for address, stored in opened.items():
                try:
                    stored.require_unchanged()
                except (CheckpointError, OSError) as error:
                    self._failures.append(_Failure(address, 0, math.inf, error))
            if self._hashes:  # what was lost will not be handed out; what else the batch holds will
                whole = [ref for ref in self.layout.refs if not self._failures_of(ref)]
                self.digests = digests_of({ref: self._ring.view(self._begin_of(ref), ref.nbytes) for ref in whole})
        finally:
            for file in self._open.values():
                self._files.release(file)
            self._open.clear()
            self.ready.set()


def _explain(failure: _Failure, ref: TensorRef) -> BaseException:
    """The error to raise for one tensor."""
    error = failure.error
    if isinstance(error, EOFError):
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
