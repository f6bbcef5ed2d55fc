"""Graphs: operations and launches noted while they are captured, and done again in replays.

A GPU does nothing while it captures. Here the operations are done, since shapes are needed; their results are
overwritten when the capture ends, so that nobody reads them before a replay.

A replay works at the addresses of the capture. What was made inside belongs to the graph; anything else that it reads
or writes has to be alive still, which is checked. Copies from or to the host's memory are refused: they would be done
again in every replay, when that memory is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from emulated_cuda import waits
from emulated_cuda.memory import LEDGER


@dataclass
class Count:
    """What was given to the device."""

    operations: int = 0
    launches: int = 0


COUNT = Count()
_capture: CUDAGraph | None = None
_aten = torch.ops.aten
_MEMORY_ALONE = {
    _aten.empty.memory_format,
    _aten.empty_strided.default,
    _aten.new_empty.default,
    _aten.empty_like.default,
}
"""Nothing is computed, and a later operation may change the shape of its result."""


class CUDAGraph:
    """What was captured, in order; memory that it made, and other memory that it uses."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self.results: list[torch.Tensor] = []
        self._own: set[int] = set()
        self._others: dict[int, torch.Tensor] = {}

    def made(self, tensors: Iterable[torch.Tensor]) -> None:
        """These lie in the graph's own memory."""
        self._own.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def uses(self, tensors: Iterable[torch.Tensor]) -> None:
        """A step reads or writes these."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key not in self._own and LEDGER.holds(key):
                self._others[key] = tensor

    def replay(self) -> None:
        """Do it all again, into the same memory."""
        for key, tensor in self._others.items():
            if not LEDGER.holds(key):
                raise AssertionError(f"a graph uses memory that has been freed: {tuple(tensor.shape)}")
        for step in self.steps:
            step()


class graph:  # noqa: N801 - torch's name
    """As ``torch.cuda.graph``: what happens inside is captured."""

    def __init__(self, cuda_graph: CUDAGraph, **_: object) -> None:
        self._graph = cuda_graph

    def __enter__(self) -> None:
        """Begin."""
        global _capture
        _capture = self._graph
        waits.set_capturing(True)

    def __exit__(self, *_: object) -> None:
        """End; results are not there before a replay."""
        global _capture
        _capture = None
        waits.set_capturing(False)
        for result in self._graph.results:
            if result.is_floating_point():
                result.fill_(torch.nan)


def refuse_copy() -> None:
    """No copy between host and device inside a graph."""
    if _capture is not None and waits.is_capturing():
        raise AssertionError("a graph would copy from or to the host's memory again in every replay")


def captured(func: Any, args: Any, options: Any, out: Any) -> None:
    """Note an operation that was done on the host's tensors."""
    if _capture is None or not waits.is_capturing():
        return
    inputs = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, torch.Tensor)]
    given = {leaf.untyped_storage()._cdata for leaf in inputs}
    made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
    fresh = [tensor for tensor in made if tensor.untyped_storage()._cdata not in given]
    _capture.uses(inputs)
    _capture.made(fresh)
    if func in _MEMORY_ALONE:
        return
    _capture.results.extend(fresh)

    def again() -> None:
        results = [leaf for leaf in tree_leaves(func(*args, **options)) if isinstance(leaf, torch.Tensor)]
        for before, now in zip(made, results, strict=True):
            if any(before is tensor for tensor in fresh):
                assert before.shape == now.shape, (func, before.shape, now.shape)
                before.copy_(now)

    _capture.steps.append(again)


def captured_launch(launch: Callable[[], object], operands: Iterable[torch.Tensor]) -> None:
    """Note a kernel's launch."""
    if _capture is not None and waits.is_capturing():
        _capture.uses(operands)
        _capture.steps.append(launch)


def install() -> None:
    """Into ``torch.cuda``."""
    torch.cuda.CUDAGraph = CUDAGraph
    torch.cuda.graph = graph
