"""The model as a method trains it: flags, types and adapters on transformers' own module, without a byte of weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from spectrum_fast.choose.selection.model.adapters import lora_targets
from spectrum_fast.choose.selection.model.apply import apply_selection
from spectrum_fast.choose.selection.ranking import count_taken
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_name, module_type, role

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.planner.setup import TrainingSetup
    from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton
    from spectrum_fast.choose.selection.selection import Selection

TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class TrainedModel:
    """A model as it is trained.

    Attributes:
        name: display name.
        module: on the meta device; what is trained has ``requires_grad``, every parameter its type, adapters hang on.
        count: numbers in the model's own parameters, shared ones once.
        assumption: how the modules were chosen, for people.
    """

    name: str
    module: nn.Module = field(repr=False, compare=False)
    count: int
    assumption: str

    @cached_property
    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters with a gradient; of a model with adapters these."""
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    @cached_property
    def frozen(self) -> dict[str, nn.Parameter]:
        """Parameters without gradient."""
        return {name: value for name, value in self.module.named_parameters() if not value.requires_grad}

    @property
    def trained_count(self) -> int:
        """Numbers that are trained."""
        return sum(value.numel() for value in self.trained.values())


def choose_trained(
    model: ModelSkeleton,
    setup: TrainingSetup,
    *,
    selection: Selection | None = None,
    top_percent: float = 25,
    always: str | Sequence[str] = "default",
) -> TrainedModel:
    """Apply a method to a model.

    Without a selection, ``top_percent`` of each module type are taken as many as a scan would take, spread evenly over
    the layers: their bytes do not depend on which they are, the activations below the first trained module do.

    Raises:
        SelectionError: the selection names a module that the checkpoint has not, or nothing would be trained.
        UsageError: ``top_percent`` is out of range.
    """
    module = model.module
    names = [name for name, _ in module.named_parameters()]
    targets = [module_name(name) for name, value in module.named_parameters() if is_linear(name, value)], []
    assumption = "every linear layer but the head gets an adapter" if setup.adapts else "everything is trained"
    if setup.selects:
        if selection is None:
            with_ends = always == "default" and not setup.adapts
            selection = parse_selection("\n".join(dict.fromkeys(_spread(module, top_percent, with_ends))))
            added = ", embeddings and head as well" if with_ends else ""
            assumption = f"no scan given: {top_percent:g} % of each module type, spread evenly over the layers{added}"
        else:
            share = "listed modules" if selection.top_percent is None else f"top {selection.top_percent:g} %"
            assumption = f"the selection's modules ({share})"
        if setup.adapts:
            targets = lora_targets(selection, module)
        else:
            apply_selection(selection, module, partial="whole")
            names = [name for name, value in module.named_parameters() if value.requires_grad]
    if not (any(targets) if setup.adapts else names):
        raise SelectionError(
            f"{model.name}: method {setup.method} would train nothing ({assumption}); raise the percentage or "
            "choose other modules"
        )
    return as_trained(model, setup, names, targets, assumption)


def as_trained(
    model: ModelSkeleton,
    setup: TrainingSetup,
    names: Collection[str],
    targets: tuple[Sequence[str], Sequence[str]] = ((), ()),
    assumption: str = "by hand",
) -> TrainedModel:
    """The model with flags, types and adapters as in the run: ``names`` are trained, or ``targets`` adapted."""
    module: Any = copy.deepcopy(model.module)
    count = sum(parameter.numel() for parameter in module.parameters())
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names and not setup.adapts)
    if setup.adapts:
        from peft import LoraConfig, get_peft_model

        options: dict[str, Any] = {"target_modules": sorted(targets[0]), "target_parameters": sorted(targets[1])}
        config = LoraConfig(r=setup.lora_rank, lora_dropout=setup.lora_dropout, task_type="CAUSAL_LM", **options)
        module = get_peft_model(module, config)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(TORCH[setup.trained_dtype if parameter.requires_grad else setup.dtype])
    return TrainedModel(model.name, module, count, assumption)


def is_linear(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is the weight of a linear layer inside the network: a matrix, no lookup table, no head."""
    return parameter.dim() == 2 and name.endswith(".weight") and role(name) == "other"


def competing_groups(model: nn.Module) -> dict[str, list[str]]:
    """Module type -> its modules with a weight matrix, in order; embeddings and head do not compete."""
    groups: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        if value.dim() >= 2 and role(name) == "other":
            groups.setdefault(module_type(_home(name)), []).append(_home(name))
    return groups


def _home(parameter: str) -> str:
    return module_name(parameter).removesuffix(".bias")


def _spread(model: nn.Module, top_percent: float, with_ends: bool) -> list[str]:
    taken = [_home(name) for name, _ in model.named_parameters() if with_ends and role(name) != "other"]
    for members in competing_groups(model).values():
        count = count_taken(len(members), top_percent)
        taken += [members[(2 * place + 1) * len(members) // (2 * count)] for place in range(count)]
    return taken
