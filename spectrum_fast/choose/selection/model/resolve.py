"""A selection's entries found in a live model.

An entry names a module and stands for all parameters that the module itself holds, so the bias too, as the regular
expressions of the reference's YAML do. Names are compared exactly first, then without wrapper prefixes
(:mod:`spectrum_fast.choose.selection.model.names`), then with the ``base_model_prefix`` of transformers added or
dropped, then as transformers renames and fuses them on load (:mod:`spectrum_fast.choose.selection.model.conversion`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.model.conversion import Conversion
from spectrum_fast.choose.selection.model.names import canonical_name
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.words import list_some, near_names_text

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection

_ADAPTER_PARTS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "modules_to_save"})


@dataclass(frozen=True)
class ResolvedSelection:
    """Where the entries of a selection lie in a live model.

    Attributes:
        parameters: all parameters of the model by name; tied ones under each of their names.
        matched: entry -> names of its parameters.
        parts: fused parameter -> the entries that are only a part of it (single experts).
        unmatched: entries that the model has no parameter for.
        lookup: what they were looked up in.
    """

    parameters: Mapping[str, nn.Parameter]
    matched: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, tuple[str, ...]]
    unmatched: tuple[str, ...]
    lookup: Lookup


def resolve_selection(selection: Selection, model: nn.Module, *, strict: bool = True) -> ResolvedSelection:
    """Find every entry of a selection in ``model``; nothing is changed.

    Every entry must match, or, unless ``strict``, at least one.

    Raises:
        SelectionError: an entry matches nothing or several different modules, the selection or the model is empty, or
            the model already carries adapters.
    """
    found = locate_entries(selection, model)
    if found.unmatched and (strict or not found.matched):
        raise SelectionError(_unmatched_message(found.unmatched, found.lookup))
    return found


def locate_entries(selection: Selection, model: nn.Module) -> ResolvedSelection:
    """The same, whatever is found."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if not parameters:
        raise SelectionError("the model has no parameters to train or to freeze")
    adapter = next((name for name in parameters if not _ADAPTER_PARTS.isdisjoint(name.split("."))), None)
    if adapter is not None:
        raise SelectionError(
            f"the model already has adapters ({adapter}), and applying a selection would freeze them; put adapters on "
            "the selected modules instead: peft_config = selection.lora_config(model), before the model is wrapped"
        )
    entries = {module.name: module.parameter for module in selection.modules}
    entries.update({name: entries.get(name) for name in selection.always})
    if not entries:
        raise SelectionError("the selection is empty: applying it would freeze the whole model; raise top_percent")

    lookup = Lookup(parameters, model)
    matched: dict[str, tuple[str, ...]] = {}
    parts: dict[str, list[str]] = {}
    for name, parameter in entries.items():
        found, is_part = lookup.find(name, parameter)
        if found:
            matched[name] = found
        for fused in found if is_part else ():
            parts.setdefault(fused, []).append(name)
    return ResolvedSelection(
        parameters=parameters,
        matched=matched,
        parts={name: tuple(found) for name, found in parts.items()},
        unmatched=tuple(name for name in entries if name not in matched),
        lookup=lookup,
    )


class Lookup:
    """Finds the parameters of an entry; the module's docstring has the order."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], model: nn.Module) -> None:
        self.parameters = parameters
        self.conversion = Conversion(model)
        self.exact = _by_entry_name(parameters, lambda name: name)
        self.canonical = _by_entry_name(parameters, canonical_name)
        base = getattr(model, "base_model_prefix", "")
        self.base = f"{base}." if base else ""

    def module_names(self) -> list[str]:
        """Names of everything that an entry could have meant."""
        return [key for key in self.exact if key.rpartition(".")[2] not in ("weight", "bias")]

    def find(self, name: str, parameter: str | None) -> tuple[tuple[str, ...], bool]:
        """The entry's parameters, none if there are none, and whether it is only a part of them."""
        is_part = parameter is not None and module_name(parameter) != name
        found = self.exact.get(name) or self.exact.get(parameter or "")
        if found:
            return found, is_part and name not in self.exact
        found = self._canonical(name) or self._canonical(module_name(parameter or ""))
        if found:
            return found, is_part and not self._canonical(name)
        loaded = self.conversion.module_loaded_as(name, parameter)
        if loaded is None:
            return (), False
        return self._whole_modules(loaded.parameters), is_part or loaded.is_part

    def _canonical(self, name: str) -> tuple[str, ...]:
        """By the name without wrappers, or with the base model's prefix toggled."""
        short = canonical_name(name)
        candidates = [short]
        if self.base:
            candidates.append(short.removeprefix(self.base) if short.startswith(self.base) else self.base + short)
        for candidate in candidates:
            found = self.canonical.get(candidate, ())
            distinct = {id(self.parameters[parameter]): parameter for parameter in found}  # one object, two paths
            homes = {parameter.rpartition(".")[0] for parameter in distinct.values()}
            if len(homes) > 1:
                raise SelectionError(
                    f"{name}: expected one module of the model, found {len(homes)}: {list_some(sorted(homes), 5)}"
                )
            if found:
                return found
        return ()

    def _whole_modules(self, parameters: Iterable[str]) -> tuple[str, ...]:
        """With the other parameters of the module of a ``.weight``."""
        whole: dict[str, None] = {}
        for parameter in parameters:
            home = module_name(parameter)
            whole.update(dict.fromkeys(self.exact[home] if home != parameter else (parameter,)))
        return tuple(whole)

    def fused_home(self, name: str) -> str | None:
        """The fused tensor that may hold expert ``...experts.17.gate_proj``, if the model has one."""
        expert = re.match(r"(.*\bexperts)\.\d+\.", canonical_name(name))
        if expert is None:
            return None
        inside = re.compile(re.escape(expert.group(1)) + r"\.[A-Za-z_]\w*$")
        return next((found[0] for key, found in self.canonical.items() if inside.match(key)), None)


def _by_entry_name(parameters: Iterable[str], rename: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """Entry name -> parameters: a parameter is found under its own name and under its module's."""
    index: dict[str, list[str]] = {}
    for parameter in parameters:
        key = rename(parameter)
        index.setdefault(key, []).append(parameter)
        home = key.rpartition(".")[0]
        if home:
            index.setdefault(home, []).append(parameter)
    return {key: tuple(found) for key, found in index.items()}


def _unmatched_message(unmatched: tuple[str, ...], lookup: Lookup) -> str:
    modules = lookup.module_names()

    def explain(name: str) -> str:
        fused = lookup.fused_home(name)
        if fused is None:
            return name + near_names_text(name, modules)
        return (
            f"{name}: the model fuses its experts into {fused}, and its class has no conversion mapping that says "
            "where in it this expert lies; select the fused parameter, or exclude the experts"
        )

    shown = list_some(unmatched, 5, explain, between="\n  ")
    return f"{len(unmatched)} selected modules match no parameter of the model, so nothing was changed:\n  {shown}"
