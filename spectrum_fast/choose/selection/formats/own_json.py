"""The selection file of this package: strict, schema-versioned JSON that holds everything a Selection does.

Layout of schema 1: ``{"schema": 1, "kind": "selection", "model", "criterion", "top_percent", "grouping", "rounding",
"fused", "order", "seed", "always_rule", "always": [...], "modules": [...], "groups": [...], "failed": [...]}``; the
entries of ``modules`` and ``groups`` are the fields of :class:`~spectrum_fast.choose.selection.records.SelectedModule`
and :class:`~spectrum_fast.choose.selection.records.SelectionGroup`. Unknown keys are ignored; ``fused``, ``order``,
``seed`` and ``parameter_shape`` may be absent.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup, SelectionHead
from spectrum_fast.errors import SelectionError
from spectrum_fast.measure.scoring.json_fields import Place, only_version
from spectrum_fast.measure.scoring.strict_json import format_json

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.selection import Selection

SCHEMA = 1
"""Version of the layout that is written; the only one that is read."""

_HEAD = tuple(field.name for field in fields(SelectionHead))
_ALWAYS_THERE = frozenset(_HEAD) - {"fused", "order", "seed"}
"""Fields that every file has, whatever it was written by."""


def format_own(selection: Selection) -> str:
    """The text of the selection file, one module or group a line."""
    lists = {key: [asdict(entry) for entry in getattr(selection, key)] for key in ("modules", "groups")}
    head = {key: getattr(selection, key) for key in _HEAD}
    return format_json({"schema": SCHEMA, "kind": "selection", **head, **lists})


def read_own(document: dict[str, Any], source: str) -> dict[str, Any]:
    """The fields of the selection in a parsed file.

    Raises:
        SelectionError: another kind of file, an unknown schema, or a field that is not what it should be.
    """
    if document.get("kind") != "selection":
        hint = "a scan; make a selection of it with `select`" if "modules" in document else "another JSON object"
        raise SelectionError(f'{source}: expected a selection ("kind": "selection"), found {hint}')
    place = Place(source, SelectionError)
    place.read(document, "schema", only_version(SCHEMA))
    head = place.read_fields(SelectionHead, document, required=_ALWAYS_THERE)
    modules = place.records(SelectedModule, document, "modules")
    groups = place.records(SelectionGroup, document, "groups")
    names = [*head["always"], *(module.name for module in modules)]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SelectionError(f"{source}: expected each module once, found {twice!r} twice")
    return {"modules": modules, "groups": groups, **head}
