"""The launches of a reduction recorded once in a CUDA graph and replayed for every later batch of that shape.

A panel is 12 launches, and the host needs longer for them (about 0.17 ms by estimate) than the device for a single
matrix; a replay costs it nothing. Recording takes the host as long as launching, and a copy of the batch stays in
memory, so it pays from the third batch of a shape on: the first is launched as ever, the second recorded.

**Off by default, because it has not been measured on a GPU yet**: ``SPECTRUM_FAST_CUDA_GRAPH=1`` or :func:`use_graphs`.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band.workspace import Workspace, allocate

LIMIT_BYTES = 4 << 30
"""Matrices of one recording, and of all that are kept, at most."""
_MOST = 8


@dataclass(frozen=True)
class Recording:
    """A graph and the memory that it works in.

    Attributes:
        workspace: its matrices are overwritten by every batch.
        replay: runs all panels.
    """

    workspace: Workspace
    replay: Callable[[], None]

    def reduce(self, batch: Tensor, carried: Tensor | None) -> Tensor:
        """Bands of another batch."""
        self.workspace.matrix.copy_(batch)
        if carried is None or self.workspace.carried is None:
            self.replay()
        else:
            self.workspace.carried.copy_(carried)
            self.replay()
            carried.copy_(self.workspace.carried)
        return self.workspace.band.clone()


class Recordings:
    """What has been recorded, the least recently used given up first.

    Args:
        record: makes a recording for a workspace, out of the function that runs all panels in it.
    """

    def __init__(self, record: Callable[[Workspace, Callable[[Workspace], object]], Callable[[], None]]) -> None:
        self._record = record
        self._lock = threading.RLock()  # two threads score
        self._seen: set[object] = set()
        self._kept: OrderedDict[object, Recording] = OrderedDict()

    def reduce(
        self, batch: Tensor, half_width: int, run: Callable[[Workspace], object], carried: Tensor | None = None
    ) -> Tensor | None:
        """Bands (m, n, b + 1) of a batch (m, n, n); None where launching it is the better way.

        Args:
            batch: is not changed.
            half_width: b.
            run: runs all panels in a workspace.
            carried: vectors that are taken along.
        """
        with self._lock:
            return self._reduce(batch, half_width, run, carried)

    def _reduce(
        self, batch: Tensor, half_width: int, run: Callable[[Workspace], object], carried: Tensor | None
    ) -> Tensor | None:
        if batch.nbytes > LIMIT_BYTES:
            return None
        stream = torch.cuda.current_stream(batch.device).cuda_stream if batch.is_cuda else 0
        key = (batch.device, stream, tuple(batch.shape), batch.dtype, half_width, carried is None)
        if key not in self._seen:
            self._seen.add(key)  # launched as ever, which compiles and loads every kernel
            return None
        if key not in self._kept:
            while self._kept and (len(self._kept) >= _MOST or self._bytes() + batch.nbytes > LIMIT_BYTES):
                self._kept.popitem(last=False)
            workspace = allocate(
                torch.empty_like(batch), half_width, carried=None if carried is None else carried.clone()
            )
            workspace.matrix.copy_(batch)
            self._kept[key] = Recording(workspace, self._record(workspace, run))
        self._kept.move_to_end(key)
        return self._kept[key].reduce(batch, carried)

    def forget(self) -> None:
        """Give all memory back to the device, with what torch's allocator keeps; nothing where no GPU is used."""
        with self._lock:
            self._kept.clear()
            self._seen.clear()
        torch.cuda.empty_cache()

    def _bytes(self) -> int:
        return sum(recording.workspace.matrix.nbytes for recording in self._kept.values())


def record_graph(workspace: Workspace, run: Callable[[Workspace], object]) -> Callable[[], None]:
    """A CUDA graph of all panels; the workspace's matrices must hold a batch."""
    graph = torch.cuda.CUDAGraph()
    # Other threads copy to the device meanwhile and may go on.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        workspace.begin_again()
        run(workspace)
    return graph.replay


RECORDINGS = Recordings(record_graph)
_on = os.environ.get("SPECTRUM_FAST_CUDA_GRAPH", "0") == "1"


def graphs_are_on() -> bool:
    """Whether reductions on a GPU may be recorded."""
    return _on


@contextmanager
def use_graphs(on: bool) -> Iterator[None]:
    """Record reductions inside, or do not; ``RECORDINGS.forget()`` gives the memory back."""
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before
