"""Which parameters a method trains, and which adapters it adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spectrum_fast.choose.planner.model_shape import ModelShape, ParameterShape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.adapters import lora_targets
from spectrum_fast.choose.selection.ranking import count_taken
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_type


@dataclass(frozen=True)
class TrainedShape:
    """The parameters of a run.

    Attributes:
        model: the model.
        trained: names of the model's own parameters that are trained.
        adapted: modules with an adapter.
        adapted_parameters: fused parameters with an adapter.
        adapters: the adapters' parameters, trained one and all.
        assumption: how the modules were chosen, for people.
    """

    model: ModelShape
    trained: frozenset[str]
    adapted: frozenset[str]
    adapters: tuple[ParameterShape, ...]
    assumption: str
    adapted_parameters: frozenset[str] = frozenset()

    @property
    def trained_parameters(self) -> tuple[ParameterShape, ...]:
        """The model's own parameters that are trained, then the adapters'."""
        return (*(p for p in self.model.parameters if p.name in self.trained), *self.adapters)

    @property
    def frozen_parameters(self) -> tuple[ParameterShape, ...]:
        """Parameters without gradient."""
        return tuple(p for p in self.model.parameters if p.name not in self.trained)

    @property
    def trained_count(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.count for parameter in self.trained_parameters)


def choose_trained(
    model: ModelShape,
    setup: TrainingSetup,
    *,
    selection: Selection | None = None,
    top_percent: float = 25,
    always: str | Sequence[str] = "default",
) -> TrainedShape:
    """Apply a method to a model's shapes.

    Without a selection, ``top_percent`` of each module type are taken as many as a scan would take, spread evenly over
    the layers: their bytes do not depend on which they are, the activations below the first trained module do.

    Args:
        model: the model.
        setup: says the method.
        selection: the modules, for the methods that select; made from a scan or read from a file.
        top_percent: share of each type where there is no selection.
        always: ``default`` trains embeddings and head as well where there is no selection, ``none`` does not.

    Raises:
        SelectionError: the selection names a module that the checkpoint has not, or nothing would be trained.
        UsageError: ``top_percent`` is out of range.
    """
    targets: tuple[list[str], list[str]] = ([p.module for p in model.parameters if p.is_linear], [])
    trained = frozenset(p.name for p in model.parameters)
    if not setup.selects:
        assumption = "every linear layer but the head gets an adapter" if setup.adapts else "everything is trained"
    elif selection is not None:
        share = "listed modules" if selection.top_percent is None else f"top {selection.top_percent:g} %"
        assumption = f"the selection's modules ({share})"
        if setup.adapts:
            targets = lora_targets(selection, model.module)
        else:
            selection.apply(model.module, partial="whole")
            trained = frozenset(name for name, value in model.module.named_parameters() if value.requires_grad)
    else:
        with_ends = always == "default" and not setup.adapts
        modules = _spread(model, top_percent, with_ends)
        trained = frozenset(p.name for p in model.parameters if p.module in modules)
        targets = ([p.module for p in model.parameters if p.is_linear and p.module in modules], [])
        added = ", embeddings and head as well" if with_ends else ""
        assumption = f"no scan given: {top_percent:g} % of each module type, spread evenly over the layers{added}"
    adapted, whole = map(frozenset, targets) if setup.adapts else (frozenset(), frozenset())
    adapters = tuple(
        part
        for parameter in model.parameters
        if (parameter.is_linear and parameter.module in adapted) or parameter.name in whole
        for part in _adapter(parameter, setup.lora_rank)
    )
    if setup.adapts:
        trained = frozenset()
    if not trained and not adapters:
        raise SelectionError(
            f"{model.name}: method {setup.method} would train nothing ({assumption}); raise the percentage or "
            "choose other modules"
        )
    return TrainedShape(model, trained, adapted, adapters, assumption, whole)


def competing_groups(model: ModelShape) -> dict[str, list[ParameterShape]]:
    """Module type -> its weight matrices in order; embeddings and head do not compete."""
    groups: dict[str, list[ParameterShape]] = {}
    for parameter in model.parameters:
        if len(parameter.shape) >= 2 and not parameter.is_end:
            groups.setdefault(module_type(parameter.module), []).append(parameter)
    return groups


def _spread(model: ModelShape, top_percent: float, with_ends: bool) -> frozenset[str]:
    taken = []
    for members in competing_groups(model).values():
        count = count_taken(len(members), top_percent)
        taken += [members[(2 * place + 1) * len(members) // (2 * count)].module for place in range(count)]
    ends = [p.module for p in model.parameters if with_ends and p.is_end]
    return frozenset(taken) | frozenset(ends)


def _adapter(parameter: ParameterShape, rank: int) -> tuple[ParameterShape, ParameterShape]:
    """The two factors of a LoRA adapter: (rank, in) and (out, rank), once for each expert of a fused parameter."""
    *experts, rows, columns = parameter.shape
    rank *= math.prod(experts)
    base = parameter.module
    return ParameterShape(f"{base}.lora_A.weight", (rank, columns)), ParameterShape(
        f"{base}.lora_B.weight", (rows, rank)
    )
