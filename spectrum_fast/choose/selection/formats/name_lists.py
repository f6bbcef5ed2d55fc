"""Selections as bare lists of module names: one a line, or the JSON list that PEFT takes as ``target_modules``.

PEFT matches an entry if a module's name equals it or ends with ``"." + entry``. The full names written here are
therefore exact, whatever wrapper stands before them. Only the ranked modules are written for PEFT: norms cannot carry
an adapter, and embeddings and head (``always``) go into PEFT's ``modules_to_save`` where they shall be trained too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.records import SelectedModule
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_type

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.selection import Selection

NAME = re.compile(r"[\w./-]+")


def can_carry_adapter(module: SelectedModule) -> bool:
    """Whether the weight is a matrix; a shape that is not known counts as one."""
    return module.shape is None or len(module.shape) == 2


def format_peft(selection: Selection) -> str:
    """A JSON list of full module names, one a line.

    Raises:
        SelectionError: no selected module is a matrix, so that PEFT would have no target.
    """
    names = [module.name for module in selection.modules if can_carry_adapter(module)]
    if not names:
        raise SelectionError("format 'peft': expected at least one selected matrix, found none; raise top_percent")
    return json.dumps(names, indent=1) + "\n"


def format_names(selection: Selection) -> str:
    """One name a line: modules trained always first, then the chosen ones by rank."""
    return "".join(f"{name}\n" for name in selection.names)


def read_list(document: Sequence[Any], source: str) -> dict[str, Any]:
    """The fields of the selection in a PEFT list.

    Raises:
        SelectionError: an entry is no name, or there is none.
    """
    return _fields([(f"entry {index}", name) for index, name in enumerate(document)], source)


def read_names(text: str, source: str) -> dict[str, Any]:
    """The fields of the selection in one name a line; blank lines and lines that start with ``#`` are skipped.

    Raises:
        SelectionError: a line is no name, or there is none.
    """
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return _fields([(where, line) for where, line in lines if line and not line.startswith("#")], source)


def _fields(located: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    if not located:
        raise SelectionError(f"{source}: expected module names, found none")
    modules: dict[str, SelectedModule] = {}
    for where, text in located:
        if not isinstance(text, str) or not NAME.fullmatch(text):
            raise SelectionError(f"{source}, {where}: expected a module name, found {text!r:.80}")
        name = text.removesuffix(".weight")
        modules.setdefault(name, SelectedModule(name=name, type=module_type(name), group=module_type(name)))
    return {"modules": tuple(modules.values()), "always_rule": "none"}
