"""What is trained, proved on the model, on its optimizer and in every process; and what is trained from now on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object

from spectrum_fast.choose.selection.model.masking import is_masked
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.words import list_some

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection


def require_some_trainable(model: nn.Module, *, all_expected: bool) -> None:
    """Stop a run that would train nothing, or everything where that was not asked for, or not all where it was.

    Raises:
        SelectionError: it would.
    """
    parameters = dict(model.named_parameters())
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if len(frozen) == len(parameters):
        raise SelectionError(
            "no parameter of the model is trainable: the run would change nothing; check the selection"
        )
    if not frozen and not all_expected:
        raise SelectionError(
            "every parameter of the model is trainable though the method selects; if that is meant, use method full"
        )
    if frozen and all_expected:
        raise SelectionError(
            f"method full: expected every parameter trainable, found {len(frozen)} frozen: {list_some(frozen, 5)}"
        )


def require_matching_optimizer(optimizer: Any, model: nn.Module) -> int:
    """Check that the optimizer holds exactly the trainable parameters of the model, and decays none trained in part.

    Returns:
        how many parameters it holds.

    Raises:
        SelectionError: a frozen parameter is in it, a trainable one is not, or one trained in part has weight decay.
    """
    groups = optimizer_groups(optimizer)
    members = partitioned_groups(optimizer) or [group["params"] for group in groups]
    held = {id(parameter) for group in members for parameter in group}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    extra = [names.get(key, "a parameter that is not the model's") for key in held - wanted]
    missing = [names[key] for key in wanted - held]
    if extra or missing:
        raise SelectionError(
            f"the optimizer holds {len(held)} parameters, expected the {len(wanted)} trainable ones"
            + (f"; it should not hold {list_some(sorted(extra), 5)}" if extra else "")
            + (f"; it lacks {list_some(sorted(missing), 5)}" if missing else "")
            + "; select before the optimizer is made: selection.apply(model), or callbacks="
            "[SpectrumCallback(selection)] where the trainer is made, not add_callback"
        )
    if any(group.get("weight_decay") and any(map(is_masked, group["params"])) for group in groups):
        raise SelectionError(
            "a parameter trained in part has weight decay, which would move the experts that are not selected; put it "
            "in a group with weight_decay 0, or use `spectrum-fast train`, which does"
        )
    return len(held)


def require_same_trainable(model: nn.Module) -> None:
    """Check that every process of the run trains the same parameters; all of them must call it.

    Raises:
        SelectionError: two processes differ: their scans, selections or files are not the same.
    """
    names = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    found: list[str] = gather_object([hashlib.sha256("\n".join(names).encode()).hexdigest()])
    if other := next((rank for rank, digest in enumerate(found) if digest != found[0]), None):
        raise SelectionError(
            f"process {other} would train other parameters than process 0: give every process the same selection or "
            "scan file"
        )


def require_changeable(optimizer: Any, *, processes: int) -> None:
    """Refuse a run whose trained parameters cannot be changed on the way.

    DeepSpeed and FSDP2 cut their partitions, and DDP its buckets, from what is trainable at the start; a parameter
    that comes later would be left out of them without a word.

    Raises:
        UsageError: the optimizer is DeepSpeed's, or there are several processes.
    """
    by_deepspeed = bool(partitioned_groups(optimizer)) or "DeepSpeed" in type(optimizer).__name__
    if by_deepspeed or processes > 1:
        found = "a torch optimizer, found DeepSpeed's" if by_deepspeed else f"one process, found {processes}"
        raise UsageError(
            f"reselect_every: rescans work, reselection does not: expected {found}: partitions or buckets are laid out "
            "for what was trainable at the start. End the phase, save, and start the next one with the new selection"
        )


def change_trained(selection: Selection, model: nn.Module, optimizer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Apply a selection to a model that is being trained: flags, and the optimizer's groups and states with them.

    Parameters that leave lose their gradient and the optimizer's state; those that come are put into the group with
    weight decay if they are matrices and into the one without if not, where the optimizer has both (the Trainer's
    rule), with that group's current learning rate. Their state is made by the optimizer's next step.
    Gives the names of those that come, and of those that leave.

    Raises:
        SelectionError: the selection does not fit the model; neither model nor optimizer is changed then.
    """
    groups, states = optimizer_groups(optimizer), getattr(optimizer, "optimizer", optimizer).state
    selection.apply(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    trained = [parameter for parameter in names if parameter.requires_grad]
    held = {parameter for group in groups for parameter in group["params"]}
    dropped, added = held.difference(trained), [parameter for parameter in trained if parameter not in held]
    for parameter in dropped:
        parameter.grad = None
        states.pop(parameter, None)
    place = {parameter: index for index, parameter in enumerate(names)}
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter not in dropped]
    for parameter in added:
        _group_for(groups, parameter)["params"].append(parameter)
    for group in groups:  # a saved state is read back by place, into groups that are made in model order
        group["params"].sort(key=lambda parameter: place.get(parameter, -1))
    gone = sorted(names.get(parameter, "a parameter that is not the model's") for parameter in dropped)
    return tuple(sorted(names[parameter] for parameter in added)), tuple(gone)


def _group_for(groups: list[dict[str, Any]], parameter: nn.Parameter) -> dict[str, Any]:
    """A sort is stable: the first group that suits, or the first of all."""
    by_decay = sorted(groups, key=lambda group: bool(group.get("weight_decay")) != (parameter.dim() > 1))
    return by_decay[0] if {bool(group.get("weight_decay")) for group in groups} == {True, False} else groups[0]


def optimizer_groups(optimizer: Any) -> list[dict[str, Any]]:
    """The groups of torch's optimizer, wrapped by accelerate or DeepSpeed or not."""
    return getattr(getattr(optimizer, "optimizer", optimizer), "param_groups", [])


def partitioned_groups(optimizer: Any) -> list[list[Any]]:
    """The model's parameters that DeepSpeed has cut into partitions; empty for any other optimizer."""
    for owner in (optimizer, getattr(optimizer, "optimizer", optimizer)):
        for attribute in ("fp16_groups", "bit16_groups"):  # ZeRO-3; ZeRO-1 and 2
            if (groups := getattr(owner, attribute, None)) is not None:
                return groups
    return []
