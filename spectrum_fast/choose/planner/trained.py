"""Which parameters a method trains, and which adapters it adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spectrum_fast.choose.planner.model_shape import ModelShape, ParameterShape
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.patterns import near_names_text
from spectrum_fast.choose.selection.ranking import count_taken
from spectrum_fast.choose.selection.records import Selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_type

_SHOWN = 5


@dataclass(frozen=True)
class TrainedShape:
    """The parameters of a run.

    Attributes:
        model: the model.
        trained: names of the model's own parameters that are trained.
        adapted: modules with an adapter.
        adapters: the adapters' parameters, trained one and all.
        assumption: how the modules were chosen, for people.
    """

    model: ModelShape
    trained: frozenset[str]
    adapted: frozenset[str]
    adapters: tuple[ParameterShape, ...]
    assumption: str

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
    always: str = "default",
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
    if not setup.selects:
        modules = frozenset(p.module for p in model.parameters)
        assumption = "every linear layer but the head gets an adapter" if setup.adapts else "everything is trained"
    elif selection is not None:
        modules = _selected(model, selection)
        share = "listed modules" if selection.top_percent is None else f"top {selection.top_percent:g} %"
        assumption = f"the selection's modules ({share})"
    else:
        modules = _spread(model, top_percent, always == "default" and not setup.adapts)
        added = ", embeddings and head as well" if always == "default" and not setup.adapts else ""
        assumption = f"no scan given: {top_percent:g} % of each module type, spread evenly over the layers{added}"
    if setup.adapts:
        adapted = tuple(p for p in model.parameters if p.is_linear and p.module in modules)
        trained: frozenset[str] = frozenset()
    else:
        adapted = ()
        trained = frozenset(p.name for p in model.parameters if p.module in modules)
    adapters = tuple(part for parameter in adapted for part in _adapter(parameter, setup.lora_rank))
    if not trained and not adapters:
        raise SelectionError(
            f"{model.name}: method {setup.method} would train nothing ({assumption}); raise the percentage or "
            "choose other modules"
        )
    return TrainedShape(model, trained, frozenset(p.module for p in adapted), adapters, assumption)


def competing_groups(model: ModelShape) -> dict[str, list[ParameterShape]]:
    """Module type -> its weight matrices in order; embeddings and head do not compete."""
    groups: dict[str, list[ParameterShape]] = {}
    for parameter in model.parameters:
        if len(parameter.shape) >= 2 and not (parameter.is_embedding or parameter.is_head):
            groups.setdefault(module_type(parameter.module), []).append(parameter)
    return groups


def _spread(model: ModelShape, top_percent: float, with_ends: bool) -> frozenset[str]:
    taken = []
    for members in competing_groups(model).values():
        count = count_taken(len(members), top_percent)
        taken += [members[(2 * place + 1) * len(members) // (2 * count)].module for place in range(count)]
    ends = [p.module for p in model.parameters if with_ends and (p.is_embedding or p.is_head)]
    return frozenset(taken) | frozenset(ends)


def _selected(model: ModelShape, selection: Selection) -> frozenset[str]:
    """Modules in memory that a selection's entries stand for; a fused parameter is trained whole if any part is."""
    home: dict[str, str] = {}
    for parameter in model.parameters:
        home.setdefault(parameter.module, parameter.module)
        home.update(dict.fromkeys(parameter.sources, parameter.module))
    found: set[str] = set()
    missing: list[str] = []
    for name in selection.names:
        if name in home:
            found.add(home[name])
        elif name not in _tied_heads(model):
            missing.append(name)
    if missing:
        lines = [f"{len(missing)} modules of the selection are not in {model.name}:"]
        lines += [f"  {name}{near_names_text(name, list(home))}" for name in missing[:_SHOWN]]
        raise SelectionError("\n".join(lines) + ("" if len(missing) <= _SHOWN else "\n  and more"))
    return frozenset(found)


def _tied_heads(model: ModelShape) -> Iterable[str]:
    return ("lm_head", "embed_out", "output") if model.tied else ()


def _adapter(parameter: ParameterShape, rank: int) -> tuple[ParameterShape, ParameterShape]:
    """The two factors of a LoRA adapter: (rank, in) and (out, rank)."""
    rows, columns = parameter.shape
    base = parameter.module
    return (
        ParameterShape(f"{base}.lora_A.weight", (rank, columns), (base,)),
        ParameterShape(f"{base}.lora_B.weight", (rows, rank), (base,)),
    )
