"""Read tensors one after the other, with one thread reading ahead of the consumer.

Memory does not grow with the model: at most ``read_ahead + 1`` tensors are alive besides the one that the consumer
holds. Reads are positional, into memory that was never zero-filled, in chunks, so that a scan can be
interrupted inside a large tensor. A file that changes between its header and its last byte is an error, never a wrong
score.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from spectrum_fast.checkpoint.dtypes import storage_dtype, torch_dtype
from spectrum_fast.checkpoint.files import shorten
from spectrum_fast.checkpoint.storage import Address, StoredFile, open_stored_file, read_failure
from spectrum_fast.checkpoint.tensor_ref import TensorRef
from spectrum_fast.errors import CheckpointError, UsageError

CHUNK_BYTES = 64 << 20
"""Bytes asked for in one read: long enough for full speed, short enough to stop within a fraction of a second."""

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class LoadedTensor:
    """A tensor in memory.

    Attributes:
        ref: where it came from.
        tensor: its values, contiguous, on the CPU, in the stored type and shape.
        read_seconds: time spent reading it, by the reading thread.
    """

    ref: TensorRef
    tensor: torch.Tensor
    read_seconds: float


def load_tensor(ref: TensorRef) -> torch.Tensor:
    """Read one tensor.

    Args:
        ref: a tensor of dtype F64, F32, F16 or BF16.

    Returns:
        A contiguous CPU tensor of ``ref.shape``; it owns its memory.

    Raises:
        UnsupportedDtypeError: the storage type is not decoded.
        CheckpointError: the file cannot be read, is shorter than its header said, or has changed since.
    """
    reader = TensorReader(threading.Event())
    try:
        return reader.read(ref).tensor
    finally:
        reader.close()


def stream_tensors(refs: Iterable[TensorRef], *, read_ahead: int = 1) -> Iterator[LoadedTensor]:
    """Read tensors in the given order; while the consumer works on one, the next ones are read.

    Close the iterator (or let it go) to stop early: the reading thread ends within a chunk and the file is closed.

    Args:
        refs: tensors to read; file order is fastest. ``refs`` is only advanced as tensors are needed.
        read_ahead: tensors read before they are asked for; 0 reads in the caller's thread.

    Yields:
        The tensors, in order.

    Raises:
        UsageError: ``read_ahead`` is negative.
        UnsupportedDtypeError: a tensor's storage type is not decoded; raised in that tensor's turn.
        CheckpointError: as for :func:`load_tensor`; raised in that tensor's turn.
    """
    return stream_items(refs, lambda reader, ref: reader.read(ref), read_ahead=read_ahead)


def stream_items(
    items: Iterable[Item], read: Callable[[TensorReader, Item], Loaded], *, read_ahead: int = 1
) -> Iterator[Loaded]:
    """Read anything that lies in files, in the given order and ahead of the consumer; see :func:`stream_tensors`.

    Args:
        items: what to read, one after the other.
        read: reads one of them; called in the reading thread, with a reader that is used by no other thread.
        read_ahead: items read before they are asked for; 0 reads in the caller's thread.

    Yields:
        What ``read`` returned, in order. No reference to it is kept.

    Raises:
        UsageError: ``read_ahead`` is negative.
    """
    if read_ahead < 0:
        raise UsageError(f"read_ahead must be 0 or more, found {read_ahead}")
    return _stream(iter(items), read, read_ahead)


def _stream(items: Iterator[Item], read: Callable[[TensorReader, Item], Loaded], read_ahead: int) -> Iterator[Loaded]:
    stop = threading.Event()
    reader = TensorReader(stop)
    if read_ahead == 0:
        try:
            for item in items:
                yield read(reader, item)
        finally:
            reader.close()
        return
    pending: deque[Future[Loaded]] = deque()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spectrum-fast-read")
    try:
        for item in items:
            pending.append(executor.submit(read, reader, item))
            if len(pending) <= read_ahead:
                continue
            # Neither name nor future is kept: the consumer's reference must be the last one.
            yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)
        reader.close()


class TensorReader:
    """Reads tensors in one thread; keeps the current file open.

    Args:
        stop: once set, a read in progress ends with ``CancelledError`` at its next chunk.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._address: Address | None = None
        self._file: StoredFile | None = None

    def read(self, ref: TensorRef) -> LoadedTensor:
        """Read a tensor of plain numbers; :func:`load_tensor` says what it raises."""
        started = time.perf_counter()
        tensor = self._read_as(ref, torch_dtype(ref))
        return LoadedTensor(ref, tensor, time.perf_counter() - started)

    def read_raw(self, ref: TensorRef) -> torch.Tensor:
        """Read a tensor of any storage type that a decoder takes, codes and all; raises as :func:`load_tensor`."""
        return self._read_as(ref, storage_dtype(ref))

    def _read_as(self, ref: TensorRef, dtype: torch.dtype) -> torch.Tensor:
        file = self._open(ref)
        raw = torch.empty(ref.nbytes, dtype=torch.uint8)
        self._fill(ref, file, raw.numpy().data)
        try:
            file.require_unchanged()
        except CheckpointError as error:
            raise CheckpointError(f"tensor {shorten(ref.name)}: {error}") from error
        return raw.view(dtype).reshape(ref.shape)

    def close(self) -> None:
        """Close the file that is open, if one is."""
        if self._file is not None:
            self._file.close()
        self._address, self._file = None, None

    def _open(self, ref: TensorRef) -> StoredFile:
        if self._file is None or self._address != ref.file:
            self.close()
            self._file = open_stored_file(ref.file)
            self._address = ref.file
            descriptor = self._file.descriptor()
            if descriptor is not None and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        if ref.stamp is not None and self._file.stamp != ref.stamp:
            raise _changed(ref)
        return self._file

    def _fill(self, ref: TensorRef, file: StoredFile, buffer: memoryview) -> None:
        done = 0
        while done < ref.nbytes:
            if self._stop.is_set():
                raise CancelledError
            try:
                count = file.read_into(buffer[done : done + CHUNK_BYTES], ref.begin + done)
            except OSError as error:
                raise CheckpointError(
                    f"tensor {shorten(ref.name)} in {ref.file}: cannot be read at byte {ref.begin + done}: "
                    f"{read_failure(error)}"
                ) from error
            if count == 0:
                raise CheckpointError(
                    f"tensor {shorten(ref.name)} in {ref.file}: expected {ref.nbytes} bytes, the file ends after "
                    f"{done}: truncated or replaced while being read; download it again"
                )
            done += count


def _changed(ref: TensorRef) -> CheckpointError:
    return CheckpointError(
        f"tensor {shorten(ref.name)} in {ref.file}: the file was truncated or replaced while being read; scan again "
        "when nothing writes to it"
    )
