"""A selection applied to a live model: everything frozen but the parameters of the selected modules.

An entry names a module and frees all parameters that the module itself holds, so the bias too, as the regular
expressions of the reference's YAML do. Names are compared exactly first, then without wrapper prefixes
(:mod:`spectrum_fast.selection.runtime_names`), then with the ``base_model_prefix`` of transformers added or dropped.
Nothing is changed unless every entry matches: a silent full or empty fine-tune is the worst outcome there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrum_fast.checkpoint.naming import module_name
from spectrum_fast.errors import SelectionError
from spectrum_fast.selection.patterns import near_names_text
from spectrum_fast.selection.runtime_names import canonical_name

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.selection.records import Selection

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class AppliedSelection:
    """What is trained after :func:`apply_selection`. Shared (tied) parameters count once.

    Attributes:
        trainable_parameters: numbers in trainable tensors.
        total_parameters: numbers in all parameters of the model.
        trainable_bytes: bytes of the trainable tensors.
        total_bytes: bytes of all parameters.
        matched: entry -> names of the parameters it freed, as the model calls them.
        unmatched: entries that matched nothing (only with ``strict=False``).
    """

    trainable_parameters: int
    total_parameters: int
    trainable_bytes: int
    total_bytes: int
    matched: Mapping[str, tuple[str, ...]]
    unmatched: tuple[str, ...] = ()

    @property
    def trainable_fraction(self) -> float:
        """Trainable share of the parameters, in (0, 1]."""
        return self.trainable_parameters / self.total_parameters

    def summary(self) -> str:
        """One line for people."""
        text = (
            f"{self.trainable_parameters:,} of {self.total_parameters:,} parameters trainable "
            f"({100 * self.trainable_fraction:.2f} %), {self.trainable_bytes / 2**30:.3f} of "
            f"{self.total_bytes / 2**30:.3f} GiB, {len(self.matched)} modules"
        )
        return text + (f"; {len(self.unmatched)} entries matched nothing" if self.unmatched else "")


def apply_selection(selection: Selection, model: nn.Module, *, strict: bool = True) -> AppliedSelection:
    """Set ``requires_grad`` to True for the selection's parameters and to False for all others.

    Args:
        selection: what to train.
        model: any torch module that holds the parameters, wrapped or not.
        strict: every entry must match at least one parameter. With False, entries without a match are reported in
            ``unmatched``; at least one entry must match.

    Returns:
        counts, bytes and what each entry matched.

    Raises:
        SelectionError: an entry matches nothing or several different modules, a matched parameter is quantised and
            cannot have a gradient, or the selection is empty. The model is unchanged then.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if not parameters:
        raise SelectionError("the model has no parameters to train or to freeze")
    entries = {module.name: module.parameter for module in selection.modules}
    entries.update({name: entries.get(name) for name in selection.always})
    if not entries:
        raise SelectionError("the selection is empty: applying it would freeze the whole model; raise top_percent")

    lookup = _Lookup(parameters, getattr(model, "base_model_prefix", ""))
    matched = {name: found for name, parameter in entries.items() if (found := lookup.find(name, parameter))}
    unmatched = tuple(name for name in entries if name not in matched)
    if unmatched and (strict or not matched):
        raise SelectionError(_unmatched_message(unmatched, lookup))
    for name, found in matched.items():
        for parameter in found:
            if not parameters[parameter].is_floating_point():
                raise SelectionError(
                    f"{name}: parameter {parameter!r} is stored as {parameters[parameter].dtype}, which cannot have a "
                    "gradient; on a quantised model train adapters on the selected modules instead (format 'peft')"
                )

    for parameter in parameters.values():
        parameter.requires_grad_(False)
    for found in matched.values():
        for name in found:
            parameters[name].requires_grad_(True)

    unique = {id(parameter): parameter for parameter in parameters.values()}.values()
    trainable = [parameter for parameter in unique if parameter.requires_grad]
    return AppliedSelection(
        trainable_parameters=sum(map(_count, trainable)),
        total_parameters=sum(map(_count, unique)),
        trainable_bytes=sum(_count(parameter) * parameter.element_size() for parameter in trainable),
        total_bytes=sum(_count(parameter) * parameter.element_size() for parameter in unique),
        matched=matched,
        unmatched=unmatched,
    )


def _count(parameter: nn.Parameter) -> int:
    """Numbers in a parameter; DeepSpeed ZeRO-3 leaves an empty stand-in and the true count in ``ds_numel``."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


class _Lookup:
    """Finds the parameters of an entry: exact, then canonical, then with the base model's prefix toggled."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], base_prefix: str) -> None:
        self.parameters = parameters
        self.exact = _by_entry_name(parameters, lambda name: name)
        self.canonical = _by_entry_name(parameters, canonical_name)
        self.base = f"{base_prefix}." if base_prefix else ""

    def find(self, name: str, parameter: str | None) -> tuple[str, ...]:
        home = module_name(parameter or "")  # another name where the entry is a part of a fused parameter
        found = self.exact.get(name) or self.exact.get(home)
        if found:
            return found
        candidates = []
        for short in dict.fromkeys((canonical_name(name), canonical_name(home))):
            candidates.append(short)
            if self.base:
                candidates.append(short.removeprefix(self.base) if short.startswith(self.base) else self.base + short)
        for candidate in candidates:
            found = self.canonical.get(candidate, ())
            distinct = {id(self.parameters[parameter]): parameter for parameter in found}  # one object, two paths
            homes = {parameter.rpartition(".")[0] for parameter in distinct.values()}
            if len(homes) > 1:
                raise SelectionError(
                    f"{name}: expected one module of the model, found {len(homes)}: {', '.join(sorted(homes)[:_SHOWN])}"
                )
            if found:
                return found
        return ()

    def fused_home(self, name: str) -> str | None:
        """The fused tensor that holds expert ``...experts.17.gate_proj`` at run time, if there is one."""
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


def _unmatched_message(unmatched: tuple[str, ...], lookup: _Lookup) -> str:
    modules = [key for key in lookup.exact if key.rpartition(".")[2] not in ("weight", "bias")]
    lines = [f"{len(unmatched)} selected modules match no parameter of the model, so nothing was changed:"]
    for name in unmatched[:_SHOWN]:
        fused = lookup.fused_home(name)
        if fused is not None:
            lines.append(
                f"  {name}: this model fuses its experts at run time into {fused} (one 3-D parameter for all experts), "
                "and a part of a parameter cannot be frozen; applying a selection of single experts to a fused model "
                "is not supported yet: load the model unfused, or exclude the experts"
            )
        else:
            lines.append(f"  {name}{near_names_text(name, modules)}")
    if len(unmatched) > _SHOWN:
        lines.append(f"  and {len(unmatched) - _SHOWN} more")
    return "\n".join(lines)
