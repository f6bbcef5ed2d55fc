"""From the ring to the device: one asynchronous copy a batch, on a stream of its own.

On the CPU there is no such stage: tensors are views of the ring. On a GPU the ring is page-locked, a batch is copied
whole on a side stream while the device computes on the one before, and its region goes back as soon as the copy is
done. Device memory is bounded too: no more than :data:`DEVICE_BATCHES` batches lie there at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.read.stream.batch import Batch

DEVICE_BATCHES = 3
"""One in use, one copied, one on its way."""
THREAD_NAME = "spectrum-fast-copy"


class Transfer(Protocol):
    """How bytes get to a device."""

    def start(self, source: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """Begin to copy bytes of the ring; returns the copy, and what waits until ``source`` may be overwritten."""
        ...

    def adopt(self, copy: Tensor) -> None:
        """Called in the consumer's thread before it uses a finished copy."""
        ...


class CudaTransfer:
    """Copies on a side stream of one CUDA device.

    Args:
        device: ``cuda`` or ``cuda:n``.

    Raises:
        BackendUnavailableError: there is no such device.
    """

    def __init__(self, device: str) -> None:
        require_cuda(device)
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)

    def start(self, source: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """See :meth:`Transfer.start`."""
        with torch.cuda.stream(self._stream):
            copy = torch.empty(source.shape, dtype=source.dtype, device=self._device)
            copy.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return copy, done.synchronize

    def adopt(self, copy: Tensor) -> None:
        """See :meth:`Transfer.adopt`.

        The copy is finished by then. Its memory belongs to the side stream's pool: without the note it could be used
        again while the consumer's stream still reads it.
        """
        copy.record_stream(torch.cuda.current_stream(self._device))


def require_cuda(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        BackendUnavailableError: no CUDA device of this name can be used.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise BackendUnavailableError(f"device {device!r}: expected cpu or cuda[:n], found no such name") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.type != "cuda" or (wanted.index or 0) >= count:
        raise BackendUnavailableError(
            f"device {device!r}: expected cpu or one of {count} usable CUDA devices; use --device cpu"
        )


def pin_memory(address: int, nbytes: int, device: str = "cuda") -> Callable[[], None]:
    """Page-lock memory for asynchronous copies to a device; returns what undoes it.

    Under that device: the call makes a context, half a GiB, on whichever one is current.

    Raises:
        BackendUnavailableError: the driver refuses, for instance because of the limit on locked memory.
    """
    runtime: Any = torch.cuda.cudart()
    with torch.cuda.device(device):
        code = runtime.cudaHostRegister(address, nbytes, 0)
    if int(code) != 0:
        raise BackendUnavailableError(
            f"buffer: {nbytes / 2**30:.2f} GiB cannot be page-locked (CUDA error {int(code)}); "
            "give a smaller --buffer-gib or raise the limit on locked memory (ulimit -l)"
        )
    return lambda: runtime.cudaHostUnregister(address)


class Copier:
    """One thread that copies batches in the order in which they were submitted, each as soon as it is read.

    Args:
        transfer: how.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._stop = threading.Event()
        self._permits = threading.Semaphore(DEVICE_BATCHES)
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Copy a batch once it is read; its ``ready`` tells when it is there. To be called in reading order."""
        self._batches.put(batch)

    def adopt(self, batch: Batch) -> None:
        """Called in the consumer's thread before it uses a batch."""
        if batch.device_bytes is not None:
            self._transfer.adopt(batch.device_bytes)

    def dispose(self, batch: Batch) -> None:
        """The consumer is done with a batch: its device memory may be used again."""
        batch.device_bytes = None
        self._permits.release()

    def close(self) -> None:
        """Stop; the readers must have been closed before, so that every batch counts as read."""
        self._stop.set()
        self._permits.release()
        self._batches.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._permits.acquire()
            batch.was_read.wait()
            if not self._stop.is_set() and not batch.cancelled:
                self._copy(batch)
            batch.ready.set()
            if self._stop.is_set():
                self._permits.release()

    def _copy(self, batch: Batch) -> None:
        try:
            batch.device_bytes, wait = self._transfer.start(batch.host_bytes())
            wait()
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            batch.fail_all(error)
            return
        batch.release()
