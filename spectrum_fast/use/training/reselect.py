"""Train other parameters from now on: the model's flags and the optimizer's groups and states changed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.records import Selection


@dataclass(frozen=True)
class OptimizerChange:
    """What :func:`change_trained` did.

    Attributes:
        added: parameters that the optimizer holds now and did not before.
        dropped: parameters that it held and does not any more.
        freed_bytes: of the optimizer's state of the dropped ones.
    """

    added: tuple[str, ...]
    dropped: tuple[str, ...]
    freed_bytes: int


def require_changeable(optimizer: Any, *, processes: int) -> None:
    """Refuse a run whose trained parameters cannot be changed on the way.

    DeepSpeed and FSDP2 cut their partitions, and DDP its buckets, from what is trainable at the start; a parameter
    that comes later would be left out of them without a word.

    Args:
        optimizer: as the trainer has it.
        processes: of the run.

    Raises:
        UsageError: it is DeepSpeed's, or there are several processes.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    sharded = any(hasattr(owner, name) for owner in (optimizer, inner) for name in ("fp16_groups", "bit16_groups"))
    if sharded or "DeepSpeed" in type(optimizer).__name__:
        raise UsageError(
            "reselect_every: DeepSpeed has cut its partitions for the parameters that were trainable at the start; "
            "rescans work, reselection does not. End the phase, save, and start the next one with the new selection"
        )
    if processes > 1:
        raise UsageError(
            f"reselect_every: expected one process, found {processes}: DDP and FSDP2 have laid out their buckets for "
            "the parameters that were trainable at the start. End the phase, save, and start the next one with the "
            "new selection"
        )


def change_trained(selection: Selection, model: nn.Module, optimizer: Any) -> OptimizerChange:
    """Apply a selection to a model that is being trained.

    Parameters that leave lose their gradient and the optimizer's state; those that come are put into the group with
    weight decay if they are matrices and into the one without if not, where the optimizer has both (the Trainer's
    rule), with that group's current learning rate. Their state is made by the optimizer's next step.

    Args:
        selection: what is trained from now on.
        model: the model.
        optimizer: a torch optimizer, or accelerate's wrapper around one, between two steps.

    Returns:
        what changed.

    Raises:
        SelectionError: the selection does not fit the model; neither model nor optimizer is changed then.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    selection.apply(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {id(parameter): parameter for parameter in model.parameters() if parameter.requires_grad}
    held = {id(parameter): parameter for group in inner.param_groups for parameter in group["params"]}
    freed = 0
    dropped = [key for key in held if key not in trained]
    for key in dropped:
        held[key].grad = None
        freed += _state_bytes(inner.state.pop(held[key], {}))
    for group in inner.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in trained]
    added = [key for key in trained if key not in held]
    for key in added:
        _group_for(inner.param_groups, trained[key])["params"].append(trained[key])
    place = {id(parameter): index for index, parameter in enumerate(model.parameters())}
    for group in inner.param_groups:  # a saved state is read back by place, into groups that are made in model order
        group["params"].sort(key=lambda parameter: place.get(id(parameter), -1))
    return OptimizerChange(
        added=tuple(sorted(names[key] for key in added)),
        dropped=tuple(sorted(names.get(key, "a parameter that is not the model's") for key in dropped)),
        freed_bytes=freed,
    )


def _group_for(groups: list[dict[str, Any]], parameter: nn.Parameter) -> dict[str, Any]:
    with_decay = [group for group in groups if group.get("weight_decay")]
    without = [group for group in groups if not group.get("weight_decay")]
    if with_decay and without:
        return (with_decay if parameter.dim() > 1 else without)[0]
    return groups[0]


def _state_bytes(state: dict[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in state.values() if hasattr(value, "element_size"))
