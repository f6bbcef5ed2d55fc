"""Streams, events and page-locked memory: what one stream has written another may use once somebody has waited for it.

Everything is done at once, but for copies from page-locked memory on a side stream. Where a GPU would be later than the
host, numbers tell: each stream counts what was begun on it, and who has waited how far.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_POISON = 0xFF
_pinned_ranges: dict[int, int] = {}
_lock = threading.Lock()
_on_their_way: dict[int, int] = {}
"""Storage of a copy's target -> copies under way."""
_written: dict[int, tuple[Any, int]] = {}
"""Storage -> the stream that wrote it last, and its number then."""


class Stream:
    """Copies that were begun and have not been waited for, and how much was begun.

    Attributes:
        pending: those copies.
        begun: what was begun, a number.
        done: up to where the host has waited.
        seen: up to where this stream comes after others.
    """

    def __init__(self, device: object = None, **_: object) -> None:
        self.cuda_stream = id(self)
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.begun = self.done = 0
        self.seen: dict[Stream, int] = {}

    def wait_stream(self, stream: Stream) -> None:
        """What comes from now on comes after what was begun on another stream."""
        stream.arrive()
        self.seen |= {**stream.seen, stream: stream.begun}

    def synchronize(self) -> None:
        """The host waits for all of them."""
        self.arrive()
        self.done = self.begun

    def arrive(self) -> None:
        """Do the copies."""
        with _lock:
            for there, here in self.pending:
                there.copy_(here)
                _on_their_way[there.untyped_storage()._cdata] -= 1
            self.pending.clear()


class Event:
    """A place in a stream."""

    def __init__(self, enable_timing: bool = False, **_: object) -> None:
        self._stream: Stream | None = None
        self._begun = 0

    def record(self, stream: Stream | None = None) -> None:
        """Here."""
        self._stream = stream or current()
        self._begun = self._stream.begun

    def synchronize(self) -> None:
        """The host waits until the stream has come here (or, with copies, further)."""
        if self._stream is not None:
            self._stream.arrive()
            self._stream.done = max(self._stream.done, self._begun)

    def elapsed_time(self, other: Event) -> float:
        """No time passes on this device that would mean anything."""
        return 1.0


class _MainStream(Stream):
    def __init__(self) -> None:
        super().__init__()
        self.cuda_stream = 0


_MAIN = _MainStream()
_current = threading.local()


def current(device: object = None) -> Stream:
    """Of this thread."""
    return getattr(_current, "stream", _MAIN)


def set_current(stream: Stream) -> None:
    """Of this thread, from now on."""
    _current.stream = stream


@contextmanager
def on(stream: Stream) -> Iterator[None]:
    """What is begun inside is begun on this stream."""
    before = current()
    _current.stream = stream
    try:
        yield
    finally:
        _current.stream = before


def enqueue_copy(there: torch.Tensor, here: torch.Tensor) -> None:
    """From page-locked memory: at once on the main stream, which everything else is on too, else when waited for."""
    stream = current()
    if stream is _MAIN:
        there.copy_(here)
        return
    there.contiguous().view(torch.uint8).fill_(_POISON)
    with _lock:
        key = there.untyped_storage()._cdata
        _on_their_way[key] = _on_their_way.get(key, 0) + 1
        stream.pending.append((there, here))


def require_arrived(tensors: Iterable[Any]) -> None:
    """No operation may use what is still on its way, or being written, on another stream."""
    mine = current()
    for tensor in tensors:
        place = tensor.host.untyped_storage()._cdata
        if _on_their_way.get(place):
            mine.arrive()  # a stream keeps its order
        if _on_their_way.get(place):
            raise AssertionError(f"read before its copy was waited for: {tuple(tensor.shape)}")
        writer, number = _written.get(place, (mine, 0))
        if writer is not mine and number > max(writer.done, mine.seen.get(writer, 0)):
            raise AssertionError(f"used on one stream while another may write it: {tuple(tensor.shape)}")


def wrote(tensors: Iterable[torch.Tensor]) -> None:
    """This thread's stream has begun to write these tensors (of the host)."""
    mine = current()
    mine.begun += 1
    for tensor in tensors:
        _written[tensor.untyped_storage()._cdata] = (mine, mine.begun)


def forget(tensor: torch.Tensor) -> torch.Tensor:
    """New memory (of the host), which nobody has written yet: what lay there before, on another stream, is gone."""
    _written.pop(tensor.untyped_storage()._cdata, None)
    return tensor


def is_pinned(tensor: torch.Tensor) -> bool:
    """Whether a tensor of the host lies in page-locked memory."""
    begin = tensor.data_ptr()
    return any(start <= begin < start + nbytes for start, nbytes in list(_pinned_ranges.items()))


def pin(tensor: torch.Tensor) -> torch.Tensor:
    """Say that it does, as long as it lives."""
    address = tensor.data_ptr()
    _pinned_ranges[address] = tensor.nbytes
    weakref.finalize(tensor.untyped_storage(), _pinned_ranges.pop, address, None)
    return tensor


class Cudart:
    """What of the runtime's own functions is used: page-locking memory that exists."""

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        """Lock; 712 is CUDA's code for memory that is locked already."""
        if address in _pinned_ranges:
            return 712
        _pinned_ranges[address] = nbytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        """Unlock; 713 where it was not locked."""
        return 0 if _pinned_ranges.pop(address, None) else 713


def pinned_ranges() -> int:
    """How many are locked."""
    return len(_pinned_ranges)


def synchronize(device: object = None) -> None:
    """The host waits for the device."""
    for stream in {stream for stream, _ in list(_written.values())}:
        stream.synchronize()
