"""Train other parameters from now on: the model's flags and the optimizer's groups and states changed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectrum_fast.errors import UsageError
from spectrum_fast.use.training.trainable import partitioned_groups

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection


@dataclass(frozen=True)
class OptimizerChange:
    """Parameters that the optimizer holds now and did not, that it held and does not, and the bytes of their state."""

    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    freed_bytes: int = 0


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
    rest = "was trainable at the start. End the phase, save, and start the next one with the new selection"
    if partitioned_groups(optimizer) or "DeepSpeed" in type(optimizer).__name__:
        raise UsageError(
            f"reselect_every: rescans work, reselection does not: DeepSpeed has cut its partitions for what {rest}"
        )
    if processes > 1:
        raise UsageError(
            f"reselect_every: expected one process, found {processes}: DDP and FSDP2 have laid out buckets for what "
            f"{rest}"
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
        state = inner.state.pop(held[key], {}).values()
        freed += sum(value.numel() * value.element_size() for value in state if hasattr(value, "element_size"))
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
    """A sort is stable: the first group that suits, or the first of all."""
    by_decay = sorted(groups, key=lambda group: bool(group.get("weight_decay")) != (parameter.dim() > 1))
    return by_decay[0] if {bool(group.get("weight_decay")) for group in groups} == {True, False} else groups[0]
