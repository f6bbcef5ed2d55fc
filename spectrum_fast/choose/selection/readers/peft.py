"""PEFT: ``LoraConfig(target_modules=[...], target_parameters=[...])``, adapters on what is named.

Rule: a module is a target if its name equals an entry or ends with ``"." + entry``, a parameter that no layer of PEFT's
holds (experts fused in 3-D) likewise. Embeddings and heads that the selection trains always are no targets.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.model.adapters import lora_targets
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted, match_entries, shapes_of

if TYPE_CHECKING:
    from torch import nn


def read_as_peft(entries: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """PEFT's rule for ``target_modules``, on modules that hold a matrix called ``weight``."""
    return _read_tails(entries, {name.removesuffix(".weight"): name for name in matrices(shapes)})


def matrices(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Parameters called ``weight`` that are matrices."""
    return [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2]


def _write(wanted: Wanted) -> str:
    modules, parameters = lora_targets(wanted.selection, wanted.model)
    targets = {"target_modules": modules} | ({"target_parameters": parameters} if parameters else {})
    return json.dumps(targets, indent=1) + "\n"


def _read(text: str, model: nn.Module) -> Reading:
    targets = json.loads(text)
    targets = {"target_modules": targets} if isinstance(targets, list) else targets
    shapes = shapes_of(model)
    modules = read_as_peft(targets["target_modules"], shapes)
    parameters = _read_tails(targets.get("target_parameters") or (), {name: name for name in shapes})
    return Reading(
        parameters=modules.parameters | parameters.parameters,
        entries=modules.entries + parameters.entries,
        unmatched=modules.unmatched + parameters.unmatched,
    )


def _read_tails(entries: Collection[str], homes: Mapping[str, str]) -> Reading:
    """Each entry stands for the values of the keys that equal it or end with ``"." + entry``."""
    by_tail: dict[str, list[str]] = {}
    for home, parameter in homes.items():
        parts = home.split(".")
        for start in range(len(parts)):
            by_tail.setdefault(".".join(parts[start:]), []).append(parameter)
    return match_entries(dict.fromkeys(entries), lambda entry: by_tail.get(entry, ()))


READER = Reader(
    name="peft",
    rule="`LoraConfig`: a target's name equals an entry or ends with `.` and the entry",
    write=_write,
    read=_read,
    usage='LoraConfig(**json.load(open("{file}")), r=16, task_type="CAUSAL_LM")',
    adapts=True,
)
