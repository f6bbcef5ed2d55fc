"""The launches of a function recorded once in a CUDA graph and replayed for every later batch of its shapes.

A reduction is 8 launches a panel, and the host needs longer for them than the device for a single matrix; a replay
costs it nothing. Recording takes the host as long as launching, and its operands and all that it works in stay in
memory, so it pays from the third batch of a shape on: the first is launched as ever, the second recorded.

Inside :func:`recording`, as in a scan, they are on where a device has proved them (``spectra/device_check.py``: a
replay gave the same bits); ``SPECTRUM_FAST_CUDA_GRAPH=1`` and ``=0``, or :func:`use_graphs`, say so without asking.
**No GPU has run them yet.**
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT_BYTES = 1 << 30
"""Operands of one recording at most: for larger batches the device takes longer than the host."""
TOTAL_BYTES = 4 << 30
"""Operands of all that are kept."""

Function = Callable[..., tuple[Tensor, ...]]
"""From tensors (or None) to tensors on one device, without a wait for it, the same launches whatever the numbers."""
Capture = Callable[[Callable[[], tuple[Tensor, ...]]], tuple[Callable[[], None], tuple[Tensor, ...]]]
"""From a function to its replay and what a replay writes."""


@dataclass(frozen=True)
class Recording:
    """A graph and the memory that it works in.

    Attributes:
        operands: overwritten by every batch.
        results: written by every replay.
        replay: from one to the other.
    """

    operands: tuple[Tensor | None, ...]
    results: tuple[Tensor, ...]
    replay: Callable[[], None]

    def run(self, operands: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """Results of other operands, in memory of their own."""
        for kept, given in zip(self.operands, operands, strict=True):
            if kept is not None and given is not None:
                kept.copy_(given)
        self.replay()
        return tuple(result.clone() for result in self.results)


class Recordings:
    """What has been recorded; something is given up for a shape that has come twice since it was last used.

    Args:
        capture: records a function.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._lock = threading.RLock()  # two threads score
        self._turn = 0
        self._seen: dict[Hashable, int] = {}
        self._kept: OrderedDict[Hashable, Recording] = OrderedDict()

    def run(self, name: Hashable, function: Function, operands: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """What ``function(*operands)`` gives, launched or replayed.

        Args:
            name: of the function and all that it depends on beside its operands.
            function: may work in place in its operands; what is left in them is nobody's.
            operands: their shapes, types and device belong to the name.
        """
        with self._lock:
            found = self._recorded((name, *map(_kind, operands)), function, operands)
            if found is not None:
                return found.run(operands)
        return function(*operands)

    def _recorded(self, key: Hashable, function: Function, operands: Sequence[Tensor | None]) -> Recording | None:
        """None where it is to be launched."""
        self._turn += 1
        last, self._seen[key] = self._seen.get(key), self._turn
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        nbytes = _bytes(operands)
        if last is None or nbytes > LIMIT_BYTES:
            return None
        while sum(_bytes(one.operands) for one in self._kept.values()) + nbytes > TOTAL_BYTES:
            oldest = next(iter(self._kept))
            if self._seen[oldest] > last:
                return None
            del self._kept[oldest]
        kept = tuple(None if one is None else one.clone() for one in operands)
        replay, results = self._capture(lambda: function(*kept))
        self._kept[key] = Recording(kept, results, replay)
        return self._kept[key]

    def forget(self) -> None:
        """Give all memory back to the device, with what torch's allocator keeps; nothing where no GPU is used."""
        with self._lock:
            self._kept.clear()
            self._seen.clear()
        torch.cuda.empty_cache()


def _kind(operand: Tensor | None) -> Hashable:
    if operand is None:
        return None
    stream = torch.cuda.current_stream(operand.device).cuda_stream if operand.is_cuda else 0
    return operand.device, stream, tuple(operand.shape), operand.dtype


def _bytes(operands: Sequence[Tensor | None]) -> int:
    return sum(one.nbytes for one in operands if one is not None)


def capture_graph(function: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """A CUDA graph of a function, and what it gives."""
    graph = torch.cuda.CUDAGraph()
    # Other threads copy to the device meanwhile and may go on.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = function()
    return graph.replay, results


RECORDINGS = Recordings(capture_graph)
_asked = os.environ.get("SPECTRUM_FAST_CUDA_GRAPH")
_on: bool | None = None if _asked not in ("0", "1") else _asked == "1"
_proved: set[torch.device] = set()
_recording: ContextVar[bool] = ContextVar("spectrum_fast_recording", default=False)


def through_graph(name: Hashable, function: Function, *operands: Tensor | None) -> tuple[Tensor, ...]:
    """``function(*operands)``, by way of :data:`RECORDINGS` where graphs are on; see :meth:`Recordings.run`."""
    device = next(one.device for one in operands if one is not None)
    if device.type != "cuda" or not (_recording.get() and device in _proved if _on is None else _on):
        return function(*operands)
    return RECORDINGS.run(name, function, operands)


def prove_graphs(device: torch.device, proof: Callable[[], bool]) -> None:
    """Let graphs be used on a device where they are right, unless somebody has said whether they are to be used.

    Args:
        device: with its index.
        proof: whether replays give the bits of launches, asked with graphs on; what it raises comes through.
    """
    if _on is None:
        with use_graphs(True):
            right = proof()
        if right:
            _proved.add(device)


@contextmanager
def recording() -> Iterator[None]:
    """Record functions inside, on devices that have proved it; whoever does so gives the memory back."""
    before = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(before)


@contextmanager
def use_graphs(on: bool) -> Iterator[None]:
    """Record functions inside, or do not; ``RECORDINGS.forget()`` gives the memory back."""
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before
