"""Proofs that what is trained is what was asked for: by the model, by its optimizer, by every process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from spectrum_fast.errors import SelectionError

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 5


def require_some_trainable(model: nn.Module, *, all_expected: bool) -> None:
    """Stop a run that would train nothing, or everything where that was not asked for, or not all where it was.

    Raises:
        SelectionError: it would.
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SelectionError(
            "no parameter of the model is trainable: the run would change nothing; check the selection"
        )
    if not frozen and not all_expected:
        raise SelectionError(
            "every parameter of the model is trainable though the method selects; if that is meant, use method full"
        )
    if frozen and all_expected:
        raise SelectionError(
            f"method full: expected every parameter trainable, found {len(frozen)} frozen: {', '.join(frozen[:_SHOWN])}"
        )


def require_matching_optimizer(optimizer: Any, model: nn.Module) -> int:
    """Check that the optimizer holds exactly the trainable parameters of the model.

    Args:
        optimizer: as the trainer has it: torch's, wrapped by accelerate, or DeepSpeed's ZeRO optimizer.
        model: the live model.

    Returns:
        how many parameters it holds.

    Raises:
        SelectionError: a frozen parameter is in it, or a trainable one is not.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    groups = partitioned_groups(optimizer) or [group["params"] for group in inner.param_groups]
    held = {id(parameter) for group in groups for parameter in group}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    extra = [names.get(key, "a parameter that is not the model's") for key in held - wanted]
    missing = [names[key] for key in wanted - held]
    if extra or missing:
        raise SelectionError(
            f"the optimizer holds {len(held)} parameters, expected the {len(wanted)} trainable ones"
            + (f"; it should not hold {', '.join(sorted(extra)[:_SHOWN])}" if extra else "")
            + (f"; it lacks {', '.join(sorted(missing)[:_SHOWN])}" if missing else "")
            + "; select before the optimizer is made: selection.apply(model), or callbacks="
            "[SpectrumCallback(selection)] where the trainer is made, not add_callback"
        )
    return len(held)


def require_same_trainable(model: nn.Module) -> None:
    """Check that every process of the run trains the same parameters; all of them must call it.

    Raises:
        SelectionError: two processes differ: their scans, selections or files are not the same.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    names = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    mine = hashlib.sha256("\n".join(names).encode()).hexdigest()
    found: list[str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    if other := next((rank for rank, digest in enumerate(found) if digest != found[0]), None):
        raise SelectionError(
            f"process {other} would train other parameters than process 0: give every process the same selection or "
            "scan file"
        )


def partitioned_groups(optimizer: Any) -> list[list[Any]]:
    """The model's parameters that DeepSpeed has cut into partitions; empty for any other optimizer."""
    for owner in (optimizer, getattr(optimizer, "optimizer", optimizer)):
        for attribute in ("fp16_groups", "bit16_groups"):  # ZeRO-3; ZeRO-1 and 2
            if (groups := getattr(owner, attribute, None)) is not None:
                return groups
    return []
