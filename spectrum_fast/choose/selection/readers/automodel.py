"""NeMo Automodel: ``freeze_config`` with selectors of modules; a selector that matches nothing is refused.

Rule (``apply_parameter_freezing``): every module that a selector of ``freeze_modules`` matches is frozen with all that
is in it, then every one of ``unfreeze_modules`` is freed, with all that is in it. ``path`` is a module's full name,
``glob`` a shell pattern in which ``*`` crosses dots.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.formats.reference_yaml import parse_yaml, to_yaml
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted

if TYPE_CHECKING:
    from torch import nn


def _write(wanted: Wanted) -> str:
    homes = dict.fromkeys(name.rpartition(".")[0] for name in wanted.parameters)
    freeze = {"freeze_modules": [{"glob": "*"}], "unfreeze_modules": [{"path": home} for home in homes]}
    return to_yaml({"freeze_config": freeze})


def _read(text: str, model: nn.Module) -> Reading:
    config: dict[str, list[dict[str, Any]]] = parse_yaml(text, "the file")["freeze_config"]
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    free = {id(parameter) for parameter in model.parameters()}
    unmatched = []
    for field, apply in (("freeze_modules", free.difference_update), ("unfreeze_modules", free.update)):
        for selector in config[field]:
            path = selector.get("path")
            found = [path] if path in modules else []
            if "glob" in selector:
                found = [name for name in modules if fnmatchcase(name, selector["glob"])]
            values = {id(parameter) for name in found for parameter in modules[name].parameters()}
            unmatched += [] if values else [f"{field}: {selector}"]
            apply(values)
    return Reading(
        parameters=frozenset(name for name, parameter in model.named_parameters() if id(parameter) in free),
        entries=len(config["freeze_modules"]) + len(config["unfreeze_modules"]),
        unmatched=tuple(unmatched),
        problem=f"a selector matches no parameters: {unmatched[0]}" if unmatched else "",
    )


READER = Reader(
    name="automodel",
    rule="`freeze_config`: modules by full path, each with all that is in it",
    write=_write,
    read=_read,
    usage="merge {file} into your NeMo Automodel recipe",
)
