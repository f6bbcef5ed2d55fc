"""Weights with all that they are made of, read ahead of their use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from spectrum_fast.checkpoint.weight_plan import WeightPlan
from spectrum_fast.stream.loader import TensorReader, stream_items


@dataclass(frozen=True)
class LoadedWeight:
    """The stored tensors of one weight, in memory and not yet decoded.

    Attributes:
        plan: what it is.
        main: the weight, or its codes, contiguous, on the CPU, in the stored type and shape.
        companions: role -> tensor, as in the plan.
        read_seconds: time spent reading, by the reading thread.
    """

    plan: WeightPlan
    main: torch.Tensor
    companions: Mapping[str, torch.Tensor]
    read_seconds: float


def load_weight(plan: WeightPlan) -> LoadedWeight:
    """Read one weight; see :func:`stream_weights` for what is raised."""
    reader = TensorReader(threading.Event())
    try:
        return _read(reader, plan)
    finally:
        reader.close()


def stream_weights(plans: Iterable[WeightPlan], *, read_ahead: int = 1) -> Iterator[LoadedWeight]:
    """Read weights in the given order, as :func:`spectrum_fast.stream.stream_tensors` reads tensors.

    Codes and companions of a weight are read one after the other; companions may lie in another file. At most
    ``read_ahead + 1`` weights are alive besides the one that the consumer holds; an expert of a fused tensor counts as
    one weight, and no more of the tensor than that is read.

    Args:
        plans: what to read; file order is fastest.
        read_ahead: weights read before they are asked for; 0 reads in the caller's thread.

    Yields:
        The weights, in order.

    Raises:
        UsageError: ``read_ahead`` is negative.
        UnsupportedDtypeError: a storage type that no decoder takes; raised in that weight's turn.
        CheckpointError: a file cannot be read, is shorter than its header said, or has changed; in its turn.
    """
    return stream_items(plans, _read, read_ahead=read_ahead)


def _read(reader: TensorReader, plan: WeightPlan) -> LoadedWeight:
    started = time.perf_counter()
    if not plan.decoder:
        return LoadedWeight(plan, reader.read(plan.main).tensor, {}, time.perf_counter() - started)
    main = reader.read_raw(plan.main)
    companions = {role: reader.read_raw(ref) for role, ref in plan.companions.items()}
    return LoadedWeight(plan, main, companions, time.perf_counter() - started)
