"""What is trainable, counted on the live model, and the proof that the optimizer holds that and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from spectrum_fast.errors import SelectionError

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 5


@dataclass(frozen=True)
class TrainableShare:
    """Numbers and bytes in trainable tensors and in all; tied ones count once.

    Attributes:
        parameters: numbers in trainable tensors.
        total_parameters: numbers in all; a packed 4-bit weight counts its values, not its bytes.
        tensors: how many tensors are trainable.
        nbytes: bytes of the trainable tensors.
        total_bytes: bytes of all.
    """

    parameters: int
    total_parameters: int
    tensors: int
    nbytes: int
    total_bytes: int

    @property
    def fraction(self) -> float:
        """Trainable share of the numbers, in [0, 1]."""
        return self.parameters / max(1, self.total_parameters)


def trainable_share(model: nn.Module) -> TrainableShare:
    """Count the parameters of a live model, partitioned or not."""
    unique = list(model.parameters())  # tied ones once
    trained = [parameter for parameter in unique if parameter.requires_grad]
    return TrainableShare(
        parameters=sum(map(value_count, trained)),
        total_parameters=sum(map(value_count, unique)),
        tensors=len(trained),
        nbytes=sum(map(_bytes, trained)),
        total_bytes=sum(map(_bytes, unique)),
    )


def require_some_trainable(model: nn.Module, *, all_expected: bool) -> TrainableShare:
    """Stop a run that would train nothing, or everything where that was not asked for.

    Args:
        model: the live model.
        all_expected: the method trains every parameter.

    Raises:
        SelectionError: no parameter is trainable, or every one is though the method selects.
    """
    share = trainable_share(model)
    if share.tensors == 0:
        raise SelectionError(
            "no parameter of the model is trainable: the run would change nothing; check the selection"
        )
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not frozen and not all_expected:
        raise SelectionError(
            "every parameter of the model is trainable though the method selects; if that is meant, use method full"
        )
    if frozen and all_expected:
        raise SelectionError(
            f"method full: expected every parameter trainable, found {len(frozen)} frozen: {', '.join(frozen[:_SHOWN])}"
        )
    return share


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
    held = {id(parameter) for parameter in optimizer_parameters(optimizer)}
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


def optimizer_parameters(optimizer: Any) -> list[Any]:
    """The model's parameters that an optimizer updates; DeepSpeed's partitions are followed back to them."""
    inner = getattr(optimizer, "optimizer", optimizer)
    for owner in (optimizer, inner):
        for attribute in ("fp16_groups", "bit16_groups"):  # ZeRO-3; ZeRO-1 and 2
            groups = getattr(owner, attribute, None)
            if groups is not None:
                return _flatten(groups)
    return _flatten(group["params"] for group in inner.param_groups)


def value_count(parameter: Any) -> int:
    """How many values a parameter has: those of the whole under ZeRO-3, two a byte in 4 bits."""
    count = int(getattr(parameter, "ds_numel", parameter.numel()))
    return count * 2 * parameter.element_size() if type(parameter).__name__ == "Params4bit" else count


def _bytes(parameter: Any) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel())) * parameter.element_size()


def _flatten(groups: Iterable[Iterable[Any]]) -> list[Any]:
    return [parameter for group in groups for parameter in group]
