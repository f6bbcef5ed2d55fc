"""A selection as a PEFT configuration: LoRA on the selected modules, everything else frozen.

This is what the paper calls Spectrum + QLoRA when the base model is quantised. Embeddings and heads that the selection
trains always are left out: LoRA on a lookup table is no substitute for training it, and trainers with a fused head
refuse adapters on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.resolve import resolve_selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.read.checkpoint.naming import module_name, role

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection

_LAYERS = ("Linear", "Conv1D", "Embedding", "Linear4bit", "Linear8bitLt", "Conv1d", "Conv2d")
"""Classes of modules that PEFT wraps; other holders of a weight get the adapter on the parameter itself."""


def lora_config(selection: Selection, model: nn.Module | None = None, **options: Any) -> LoraConfig:
    """Make ``peft.LoraConfig`` for the selected modules.

    Args:
        selection: the modules; embeddings and heads are left out.
        model: the model that will be wrapped. With it, names are resolved against the model (prefixes, renamed and
            fused parameters), and a parameter that no layer of PEFT's holds, such as experts fused in 3-D, becomes a
            ``target_parameters`` entry. Without it, the checkpoint's names are used as they are.
        options: further fields of ``peft.LoraConfig``: ``r``, ``lora_alpha``, ``lora_dropout``...

    Returns:
        the configuration; its task is ``CAUSAL_LM`` unless ``task_type`` says otherwise.

    Raises:
        SelectionError: nothing is left to adapt, an entry matches nothing in ``model``, single experts of a fused
            parameter are selected, or ``lora_dropout`` meets a fused parameter.
        UsageError: PEFT is not installed, or ``options`` holds the targets that the selection sets.
    """
    try:
        from peft import LoraConfig
    except ImportError as missing:
        raise UsageError("LoRA needs the package peft; install it: pip install 'spectrum-fast[train]'") from missing
    taken = {"target_modules", "target_parameters"} & options.keys()
    if taken:
        raise UsageError(f"{sorted(taken)[0]}: expected to be set by the selection, found a value of its own; drop it")
    modules, parameters = lora_targets(selection, model)
    if parameters and options.get("lora_dropout"):
        raise SelectionError(
            f"lora_dropout: expected 0 for an adapter on the fused parameter {parameters[0]}, found "
            f"{options['lora_dropout']}: PEFT has no dropout there; set it to 0, or exclude the fused parameters"
        )
    extra = {"target_parameters": parameters} if parameters else {}
    return LoraConfig(**{"task_type": "CAUSAL_LM", **options, "target_modules": modules, **extra})


def lora_targets(selection: Selection, model: nn.Module | None) -> tuple[list[str], list[str]]:
    """Modules and bare parameters that carry the adapters of a selection, in the names of ``model`` if there is one.

    Raises:
        SelectionError: there are none, or an entry matches nothing, or is one of several tensors fused into its
            parameter.
    """
    names = [name for name in selection.names if role(name) == "other"]
    modules, parameters = (names, []) if model is None else _targets_in(model, selection)
    if not modules and not parameters:
        raise SelectionError(
            "the selection holds no module for an adapter (embeddings and heads are left out); raise top_percent"
        )
    return modules, parameters


def _targets_in(model: nn.Module, selection: Selection) -> tuple[list[str], list[str]]:
    modules: dict[str, None] = {}
    parameters: dict[str, None] = {}
    resolved = resolve_selection(selection, model)
    for entry, names in resolved.matched.items():
        for name in names if role(entry) == "other" else ():
            if entry in resolved.parts.get(name, ()):
                raise SelectionError(
                    f"{entry}: it is one of several tensors that the model fuses into {name}, and an adapter cannot be "
                    "put on a part of a parameter; let fused parameters compete as one by their aggregated score "
                    "(`spectrum-fast train` with a scan does), or exclude the experts"
                )
            holder = model.get_submodule(name.rpartition(".")[0])
            kinds = {kind.__name__ for kind in type(holder).__mro__}
            if not kinds.isdisjoint(_LAYERS):
                modules[module_name(name).removesuffix(".bias")] = None
            elif not name.endswith(".bias"):
                parameters[name] = None
    return list(modules), list(parameters)
