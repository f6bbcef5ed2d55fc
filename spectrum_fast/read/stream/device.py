"""What leads from the ring to a device: page-locked memory, and a stream beside the one that computes.

The reader never waits for a device and needs no memory on it: weights are handed out where they were read. Who wants
them on a GPU copies them, by a :class:`SideStream`, straight into the memory that they are scored in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError


class SideStream:
    """Copies to a device, and what is done to them there, beside what the device computes; on the CPU, plain calls.

    Args:
        device: ``cpu`` or ``cuda[:n]``.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def done(self, source: Tensor | None = None) -> AbstractContextManager[None]:
        """What is begun inside is done at the end; a ``source`` that lies on a device is waited for first."""
        return nullcontext() if self._stream is None else _done_on(self._stream, source)

    def own_stream(self) -> None:
        """From now on the calling thread computes on a stream of its own, beside other threads; not on the CPU."""
        if self._stream is not None:
            torch.cuda.set_stream(torch.cuda.Stream(self.device))

    def hand_over(self, tensors: tuple[Tensor, ...]) -> None:
        """Called by the thread that computes before it uses memory that was allocated inside :meth:`done`.

        That memory belongs to the side stream: without the note it could be given out again while what was begun on it
        is still under way.
        """
        for tensor in tensors:
            if tensor.is_cuda:
                tensor.record_stream(torch.cuda.current_stream(self.device))


@contextmanager
def _done_on(stream: torch.cuda.Stream, source: Tensor | None) -> Iterator[None]:
    if source is not None and source.is_cuda:
        stream.wait_stream(torch.cuda.current_stream(source.device))
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


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
