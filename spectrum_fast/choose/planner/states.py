"""Bytes of weights, gradients and optimizer states on one GPU, by the rules by which DeepSpeed partitions.

With N processes and n numbers in a parameter (deepspeed 0.19.8; ``tests/choose/planner/test_deepspeed_states.py`` holds
every number here to the tensors of two real processes):

- **ZeRO-3** cuts every parameter, frozen or not, into N parts of ``ceil(n / N)``. The parts of trained parameters lie
  in one buffer; masters and optimizer states are float32 and of the same length. Gradients have a buffer of that length
  in the model's type. Parameters of at most ``stage3_param_persistence_threshold`` numbers also stay whole.
- **ZeRO-2** keeps the weights whole. Each optimizer group (decayed, and not decayed: norms and biases) is laid out in a
  row, padded to a multiple of 2 N, and cut into N equal parts.
- In both, masters are float32 copies even where the model is float32.
- **FSDP2** cuts each parameter's first dimension into N equal parts, the last padded; a layer is gathered in the type
  of the arithmetic while it is used, the next one with it; what belongs to no layer stays whole from forward to
  backward.
- **Plain torch** keeps all of it on every GPU; states have the parameters' own type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spectrum_fast.choose.planner.model_shape import ParameterShape
from spectrum_fast.choose.planner.packed import nf4_code_bytes, nf4_scale_bytes
from spectrum_fast.choose.planner.setup import DTYPE_BYTES, TrainingSetup
from spectrum_fast.choose.planner.trained import TrainedShape

_MASTER_BYTES = 4
_ZERO2_ALIGNMENT = 2
"""DeepSpeed's ``nccl_start_alignment_factor``."""

_ADAM_8BIT_BLOCK = 256
"""Numbers that share a scale in bitsandbytes' 8-bit optimizers, one float32 for each state."""


@dataclass(frozen=True)
class StateBytes:
    """Bytes on one GPU that do not depend on the batch.

    Attributes:
        weights: weights in the model's type, scales of quantised ones included.
        gathered: weights of other processes that are there only while they are used (ZeRO-3), and those that stay.
        gradients: gradients as kept until the step.
        master: float32 copies of the trained weights.
        moments: states of the optimizer.
        step: needed only inside a step: float32 gradients of what is stepped at a time.
        buffers: of communication.
        host: what lies in host memory instead.
    """

    weights: int
    gathered: int
    gradients: int
    master: int
    moments: int
    step: int
    buffers: int
    host: int


def partition(count: int, processes: int) -> int:
    """Length of a ZeRO-3 part: ``ceil(count / processes)``.

    >>> partition(10, 4), partition(3, 4)
    (3, 1)
    """
    return -(-count // processes)


def zero2_partition(counts: Iterable[int], processes: int) -> int:
    """Length of one process's part of a ZeRO-2 group.

    >>> zero2_partition([10, 7], 2)
    10
    """
    total, alignment = sum(counts), _ZERO2_ALIGNMENT * processes
    return -(-total // alignment) * alignment // processes


def compute_states(trained: TrainedShape, setup: TrainingSetup) -> StateBytes:
    """Bytes of a run's state on each GPU.

    Args:
        trained: which parameters are trained.
        setup: the run.
    """
    return _fsdp2(trained, setup) if setup.fsdp2 else {0: _plain, 2: _zero2, 3: _zero3}[setup.zero](trained, setup)


def _plain(trained: TrainedShape, setup: TrainingSetup) -> StateBytes:
    size = DTYPE_BYTES[setup.trained_dtype]
    own = sum(parameter.count for parameter in trained.trained_parameters) * size
    moments = sum(_moments(parameter.count, setup, size) for parameter in trained.trained_parameters)
    return StateBytes(
        weights=own + _frozen_bytes(trained, setup, lambda count: count),
        gathered=0,
        gradients=own,
        master=0,
        moments=moments,
        step=0,
        buffers=own if setup.gpus > 1 else 0,  # DDP's buckets; they are no views of the gradients by default
        host=0,
    )


def _fsdp2(trained: TrainedShape, setup: TrainingSetup) -> StateBytes:
    size, processes = DTYPE_BYTES[setup.trained_dtype], setup.gpus

    def part(parameter: ParameterShape) -> int:
        return partition(parameter.shape[0], processes) * (parameter.count // max(1, parameter.shape[0]))

    own = sum(map(part, trained.trained_parameters)) * size
    frozen = sum(map(part, trained.frozen_parameters)) * DTYPE_BYTES[setup.dtype]
    moments = sum(_moments(part(parameter), setup, size) for parameter in trained.trained_parameters)
    layers = sorted(trained.model.layers(), reverse=True)
    outside = trained.model.count - sum(layers)
    used = DTYPE_BYTES[setup.autocast_dtype if setup.autocasts else setup.dtype]
    away = setup.offload == "all"
    return StateBytes(
        weights=0 if away else own + frozen,
        gathered=(outside + sum(layers[:2])) * used,
        gradients=0 if away else own,
        master=0,
        moments=0 if away else moments,
        step=0,
        buffers=layers[0] * size if layers else 0,  # a layer's gradients, whole, before they are summed and divided
        host=2 * own + frozen + moments if away else 0,
    )


def _zero2(trained: TrainedShape, setup: TrainingSetup) -> StateBytes:
    size = setup.element_bytes
    groups = [[p.count for p in members] for members in optimizer_groups(trained.trained_parameters) if members]
    parts = [zero2_partition(counts, setup.gpus) for counts in groups]
    part = sum(parts)
    state = _MASTER_BYTES * part + _moments(part, setup, _MASTER_BYTES)
    offloaded = setup.offload != "none"
    weights = part * setup.gpus * size + _frozen_bytes(trained, setup, lambda count: count)
    biggest = max(p.count for p in trained.trained_parameters)
    reduce_bucket = _or_auto(setup.reduce_bucket, trained.model.hidden**2)
    # Two buckets: one is filled while the other is sent (overlap_comm).
    bucket = 2 * min(max(reduce_bucket, biggest), sum(map(sum, groups))) * size
    host = (state + _MASTER_BYTES * part + part * size) if offloaded else 0
    return StateBytes(
        weights=weights,
        gathered=0,
        gradients=0 if offloaded else part * size,
        master=0 if offloaded else _MASTER_BYTES * part,
        moments=0 if offloaded else _moments(part, setup, _MASTER_BYTES),
        step=0 if offloaded else _MASTER_BYTES * max(parts),
        buffers=bucket,
        host=host,
    )


def _zero3(trained: TrainedShape, setup: TrainingSetup) -> StateBytes:
    size, processes = setup.element_bytes, setup.gpus
    part = sum(partition(p.count, processes) for p in trained.trained_parameters)
    resting = part * size + _frozen_bytes(trained, setup, lambda count: partition(count, processes))
    everything = (*trained.frozen_parameters, *trained.adapters, *_own(trained))
    offload_state, offload_weights = setup.offload != "none", setup.offload == "all"
    hidden = trained.model.hidden
    threshold = _or_auto(setup.persistence_threshold, 10 * hidden)
    small = sum(p.count for p in everything if p.count <= threshold)
    large = sum(p.count for p in everything if p.count > threshold)
    live = min(large, setup.max_live + _or_auto(setup.prefetch_bucket, int(0.9 * hidden * hidden)))
    gathered = (small + live) * size if processes > 1 or offload_weights else 0  # one process uses its part in place
    moments = _moments(part, setup, _MASTER_BYTES)
    host = (_MASTER_BYTES * part * 2 + moments + part * size if offload_state else 0) + (
        resting if offload_weights else 0
    )
    return StateBytes(
        weights=0 if offload_weights else resting,
        gathered=gathered,
        gradients=0 if offload_state else part * size,
        master=0 if offload_state else _MASTER_BYTES * part,
        moments=0 if offload_state else moments,
        step=0 if offload_state else _MASTER_BYTES * min(part, setup.sub_group),
        buffers=_or_auto(setup.reduce_bucket, hidden * hidden) * size,
        host=host,
    )


def _or_auto(value: int | None, auto: int) -> int:
    """A size as given, or what transformers' DeepSpeed integration writes for ``auto``."""
    return auto if value is None else value


def _own(trained: TrainedShape) -> tuple[ParameterShape, ...]:
    return tuple(p for p in trained.model.parameters if p.name in trained.trained)


def optimizer_groups(parameters: Iterable[ParameterShape]) -> tuple[list[ParameterShape], list[ParameterShape]]:
    """Decayed and not decayed parameters: norms and biases are not, as the transformers Trainer groups them."""
    decayed: list[ParameterShape] = []
    others: list[ParameterShape] = []
    for parameter in parameters:
        (others if len(parameter.shape) < 2 else decayed).append(parameter)
    return decayed, others


def _frozen_bytes(trained: TrainedShape, setup: TrainingSetup, share: Callable[[int], int]) -> int:
    """Bytes of the frozen weights on one GPU.

    Args:
        trained: says which parameters are frozen.
        setup: says whether they are quantised. NF4 codes are partitioned as bytes; scales are not partitioned.
        share: numbers (or code bytes) of a parameter that this process keeps.
    """
    total = 0
    for parameter in trained.frozen_parameters:
        if setup.quantises and parameter.is_linear:
            total += share(nf4_code_bytes(parameter.count))
            total += nf4_scale_bytes(parameter.count, setup.double_quantisation)
        else:
            total += share(parameter.count) * setup.element_bytes
    return total


def _moments(count: int, setup: TrainingSetup, state_bytes: int) -> int:
    """Bytes of the optimizer's states for ``count`` numbers that are kept with ``state_bytes`` each."""
    if setup.optimizer == "adamw-8bit":
        if count < 4096:  # bitsandbytes keeps small tensors in float32
            return 2 * count * 4
        return 2 * (count + 4 * -(-count // _ADAM_8BIT_BLOCK))
    states = {"adamw": 2, "lion": 1, "sgd": 0, "sgd-momentum": 1}[setup.optimizer]
    return states * count * state_bytes
