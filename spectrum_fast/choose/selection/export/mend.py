"""A selection file written again in the names of a model: entries that match nothing become the nearest names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from spectrum_fast.choose.selection.export.proof import prove
from spectrum_fast.choose.selection.formats.reference_yaml import KEY, REFERENCE_HEADER
from spectrum_fast.choose.selection.model.resolve import locate_entries
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton
from spectrum_fast.choose.selection.readers import READERS
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_name, module_type
from spectrum_fast.words import near_names_text, nearest_names


class Mended(NamedTuple):
    """A selection file of the same kind, what it said -> what it says instead, and header lines without a module."""

    text: str
    replaced: Mapping[str, str]
    dropped: tuple[str, ...]


def mend_selection(text: str, source: str, skeleton: ModelSkeleton) -> Mended:
    """Write a selection file again, in the names of the model, and prove it.

    An entry that matches nothing becomes the nearest name, if that is near (nine tenths of the text) and of the same
    layer and expert.

    Raises:
        SelectionError: the file cannot be read, an entry has no near name, or the result does not fit the model.
    """
    selection = parse_selection(text, source)
    resolved = locate_entries(selection, skeleton.module)
    known = resolved.lookup.module_names()
    dropped = tuple(n for n in resolved.unmatched if n in selection.always and n in REFERENCE_HEADER)
    parts = {entry for entries in resolved.parts.values() for entry in entries}
    whole = {entry: found[0] for entry, found in resolved.matched.items() if entry not in parts}
    meant = {entry: module_name(parameter).removesuffix(".bias") for entry, parameter in whole.items()}
    for entry in resolved.unmatched:
        if entry not in dropped:
            near = [name for name in nearest_names(entry, known, cutoff=0.9) if _numbers(name) == _numbers(entry)]
            if not near:
                raise SelectionError(
                    f"{source}: {entry} matches nothing in {skeleton.name} and no name is near enough to replace it"
                    f"{near_names_text(entry, known)}; correct it or take it out"
                )
            meant[entry] = near[0]
    modules = {}
    for module in selection.modules:
        name = meant.get(module.name, module.name)
        modules[name] = replace(module, name=name, type=module_type(name))
    always = dict.fromkeys(meant.get(name, name) for name in selection.always if name not in dropped)
    mended = replace(
        selection,
        modules=tuple(module for name, module in modules.items() if name not in always),
        always=tuple(always),
        always_rule="custom" if always else "none",
    )
    start = text.lstrip()[:1]
    reader = READERS["trl" if start == "{" else "peft" if start == "[" else "axolotl" if KEY in text else "names"]
    return Mended(
        text=prove(reader, mended, skeleton)[0],
        replaced={entry: name for entry, name in meant.items() if entry != name},
        dropped=dropped,
    )


def _numbers(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isdigit()]
