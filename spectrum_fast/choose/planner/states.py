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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spectrum_fast.choose.planner.trained import TrainedModel, is_linear

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.planner.setup import TrainingSetup

_MASTER_BYTES = 4
_ZERO2_ALIGNMENT = 2
"""DeepSpeed's ``nccl_start_alignment_factor``."""

_MOST_AT_A_TIME = 1_000_000_000
"""DeepSpeed's ``stage3_max_live_parameters`` and ``sub_group_size``: numbers gathered, and numbers stepped, at most."""

_ADAM_8BIT_BLOCK = 256
"""Numbers that share a scale in bitsandbytes' 8-bit optimizers, one float32 for each state."""

_NF4_BLOCK, _NESTED_BLOCK = 64, 256
"""Numbers that share a scale in bitsandbytes' NF4, and scales that share one of their own with double quantisation."""


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
    gathered: int = 0
    gradients: int = 0
    master: int = 0
    moments: int = 0
    step: int = 0
    buffers: int = 0
    host: int = 0


def partition(count: int, processes: int) -> int:
    """Length of a ZeRO-3 part: ``ceil(count / processes)``."""
    return -(-count // processes)


def zero2_partition(counts: Iterable[int], processes: int) -> int:
    """Length of one process's part of a ZeRO-2 group.

    >>> zero2_partition([10, 7], 2)
    10
    """
    return partition(sum(counts), _ZERO2_ALIGNMENT * processes) * _ZERO2_ALIGNMENT


def compute_states(trained: TrainedModel, setup: TrainingSetup) -> StateBytes:
    """Bytes of a run's state on each GPU."""
    found = _fsdp2(trained, setup) if setup.fsdp2 else {0: _plain, 2: _zero2, 3: _zero3}[setup.zero](trained, setup)
    if setup.offload == "none":
        return found
    away = found.weights if setup.offload == "all" else 0
    host = found.gradients + 2 * found.master + found.moments + away  # gradients in the model's type, then in float32
    return replace(found, weights=found.weights - away, gradients=0, master=0, moments=0, step=0, host=host)


def _plain(trained: TrainedModel, setup: TrainingSetup) -> StateBytes:
    learns = trained.trained.values()
    own = sum(value.nbytes for value in learns)
    return StateBytes(
        weights=own + _frozen_bytes(trained, setup, lambda count: count),
        gradients=own,
        moments=sum(_moments(value.numel(), setup, value.element_size()) for value in learns),
        buffers=own if setup.gpus > 1 else 0,  # DDP's buckets; they are no views of the gradients by default
    )


def _fsdp2(trained: TrainedModel, setup: TrainingSetup) -> StateBytes:
    def part(value: nn.Parameter) -> int:
        return partition(value.shape[0], setup.gpus) * (value.numel() // max(1, value.shape[0]))

    learns = trained.trained.values()
    own = sum(part(value) * value.element_size() for value in learns)
    frozen = sum(part(value) * value.element_size() for value in trained.frozen.values())
    layers = sorted(_layers(trained.module), reverse=True)
    outside = sum(value.numel() for value in trained.module.parameters()) - sum(layers)
    return StateBytes(
        weights=own + frozen,
        gathered=(outside + sum(layers[:2])) * setup.used_bytes,
        gradients=own,
        moments=sum(_moments(part(value), setup, value.element_size()) for value in learns),
        # A layer's gradients, whole, before they are summed and divided.
        buffers=layers[0] * max(value.element_size() for value in learns) if layers else 0,
    )


def _zero2(trained: TrainedModel, setup: TrainingSetup) -> StateBytes:
    size = setup.element_bytes
    # Norms and biases are not decayed, as the transformers Trainer groups them.
    groups = [
        [value.numel() for value in trained.trained.values() if (value.dim() < 2) is bare] for bare in (False, True)
    ]
    parts = [zero2_partition(counts, setup.gpus) for counts in groups if counts]
    part = sum(parts)
    counts = [value.numel() for value in trained.trained.values()]
    # Two buckets: one is filled while the other is sent (overlap_comm).
    bucket = 2 * min(max(_hidden(trained) ** 2, *counts), sum(counts)) * size
    return StateBytes(
        weights=part * setup.gpus * size + _frozen_bytes(trained, setup, lambda count: count),
        gradients=part * size,
        master=_MASTER_BYTES * part,
        moments=_moments(part, setup, _MASTER_BYTES),
        step=_MASTER_BYTES * max(parts),
        buffers=bucket,
    )


def _zero3(trained: TrainedModel, setup: TrainingSetup) -> StateBytes:
    size, processes = setup.element_bytes, setup.gpus
    part = sum(partition(value.numel(), processes) for value in trained.trained.values())
    hidden = _hidden(trained)
    counts = [value.numel() for value in trained.module.parameters()]
    small = sum(count for count in counts if count <= 10 * hidden)
    live = min(sum(counts) - small, _MOST_AT_A_TIME + int(0.9 * hidden * hidden))
    alone = processes == 1 and setup.offload != "all"  # one process uses its part in place
    return StateBytes(
        weights=part * size + _frozen_bytes(trained, setup, lambda count: partition(count, processes)),
        gathered=0 if alone else (small + live) * size,
        gradients=part * size,
        master=_MASTER_BYTES * part,
        moments=_moments(part, setup, _MASTER_BYTES),
        step=_MASTER_BYTES * min(part, _MOST_AT_A_TIME),
        buffers=hidden**2 * size,
    )


def _hidden(trained: TrainedModel) -> int:
    """Width of the residual stream, of which transformers makes DeepSpeed's ``auto`` sizes: a bucket is its square."""
    return trained.module.get_input_embeddings().weight.shape[1]  # pyright: ignore[reportCallIssue]


def _layers(model: nn.Module) -> Iterable[int]:
    """Numbers in each layer: what FSDP2 gathers together."""
    names = getattr(model, "_no_split_modules", None) or ()
    for module in model.modules():
        if type(module).__name__ in names:
            yield sum(parameter.numel() for parameter in module.parameters())


def _frozen_bytes(trained: TrainedModel, setup: TrainingSetup, share: Callable[[int], int]) -> int:
    """Bytes of the frozen weights on one GPU, ``share`` of each: NF4 codes are divided as bytes, their scales not."""
    total = 0
    for name, value in trained.frozen.items():
        if setup.quantises and is_linear(name, value):
            codes, scales = nf4_bytes(value.numel(), setup.double_quantisation)
            total += share(codes) + scales
        else:
            total += share(value.numel()) * value.element_size()
    return total


def nf4_bytes(count: int, double: bool) -> tuple[int, int]:
    """Bytes of the codes of ``count`` numbers in NF4, two a byte; and of everything beside them.

    One float32 a block of 64, and a code book of 16; with double quantisation one byte a block of 64, one float32 a
    block of 256 scales, their mean and a second code book of 256. Source: Dettmers et al. 2023, arXiv 2305.14314,
    section 3; held to the tensors that bitsandbytes makes (tests/choose/planner/test_packed.py).

    >>> nf4_bytes(4096, False)
    (2048, 320)
    """
    scales = -(-count // _NF4_BLOCK)
    kept = scales + 4 * (-(-scales // _NESTED_BLOCK) + 1 + 256) if double else 4 * scales
    return -(-count // 2), kept + 4 * 16


def _moments(count: int, setup: TrainingSetup, state_bytes: int) -> int:
    """Bytes of the optimizer's states for ``count`` numbers that are kept with ``state_bytes`` each."""
    if setup.optimizer == "adamw-8bit":
        if count < 4096:  # bitsandbytes keeps small tensors in float32
            return 2 * count * 4
        return 2 * (count + 4 * -(-count // _ADAM_8BIT_BLOCK))
    states = {"adamw": 2, "lion": 1, "sgd": 0, "sgd-momentum": 1}[setup.optimizer]
    return states * count * state_bytes
