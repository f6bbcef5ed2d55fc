"""Scores in the two JSON layouts of the reference implementation. axolotl's Spectrum plugin reads the flat one.

Flat, ``snr_results_{slug}.json``: ``{module: {"snr": number, "type": type}}``. Sorted twin, ``..._sorted.json``:
``{type: {module: number}}``. Such files hold scores and types only, and may hold the bare words ``Infinity`` (no noise
at all: :attr:`~spectrum_fast.measure.scoring.records.ModuleScore.noise_free`), which strict JSON does not have but the
readers of these files expect, and ``NaN`` (a failure, never a number). What is written here leaves tensors without a
score out: the layout has no place for a reason. Fused parameters stand here under their own names with one score
(:mod:`spectrum_fast.choose.selection.fused`), because readers free what is named and no parameter has the name of a
part.

Source: the file format of QuixiAI/spectrum's ``model_snr_results``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.errors import ScanFileError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan

FLAT, SORTED = "flat", "sorted"


def format_reference(scan: Scan) -> str:
    """``{module: {"snr": number, "type": type}}``, indent 4, modules in scan order, no line break at the end."""
    return json.dumps(
        {module.name: {"snr": module.rank_value, "type": module.type} for module in competing_modules(scan)}, indent=4
    )


def format_reference_sorted(scan: Scan) -> str:
    """``{type: {module: snr}}``, indent 4: types in scan order, modules by falling score (equal ones in scan order)."""
    groups: dict[str, dict[str, float]] = {module.type: {} for module in competing_modules(scan)}
    for module in sorted(competing_modules(scan), key=lambda module: -module.rank_value):
        groups[module.type][module.name] = module.rank_value
    return json.dumps(groups, indent=4)


def slug_of_file(file_name: str) -> str:
    """The model's slug in a published file's name: ``snr_results_a-b_sorted.json`` -> ``a-b``; else the name's stem."""
    stem = PurePath(file_name).name.removesuffix(".json").removesuffix("_sorted")
    return re.sub(r"^snr_results_", "", stem) or stem


def read_reference(document: Any, source: str) -> dict[str, Any]:
    """The fields of a scan that a parsed file of either layout knows.

    Args:
        document: what the JSON parser returned, ``Infinity`` and ``NaN`` as floats.
        source: path of the file, for messages and for the model's slug.

    Raises:
        ScanFileError: neither layout, an empty result, or an entry that is not what its layout asks for.
    """
    if not isinstance(document, dict):
        raise ScanFileError(f"{source}: expected a JSON object, found {_kind(document)}")
    if not document:
        raise ScanFileError(f"{source}: expected scores, found an empty object; the scan that wrote it found no module")
    layout = FLAT if _looks_flat(document) else SORTED
    modules: list[ModuleScore] = []
    failures: list[ScanFailure] = []
    seen: set[str] = set()
    for name, type_, score in (_flat_entries if layout == FLAT else _sorted_entries)(document, source):
        if not type_:
            raise ScanFileError(f"{source}: module {name!r}: field 'type': expected a name, found an empty one")
        if name in seen:
            raise ScanFileError(f"{source}: expected each module once, found {name!r} under two types")
        seen.add(name)
        if math.isnan(score):
            failures.append(ScanFailure(name=name, kind="nan", message="the published score is NaN"))
        elif score == math.inf:
            modules.append(ModuleScore(name=name, type=type_, snr=None, noise_free=True))
        elif score < 0:
            raise ScanFileError(f"{source}: module {name!r}: field 'snr': expected a number >= 0, found {score!r}")
        else:
            modules.append(ModuleScore(name=name, type=type_, snr=score))
    if not seen:
        raise ScanFileError(f"{source}: expected scores, found only empty groups")
    return {
        "model": slug_of_file(source),
        "criterion": "spectrum",
        "modules": tuple(modules),
        "failures": tuple(failures),
        "provenance": {"source": "published", "layout": layout, "file": PurePath(source).name},
    }


def _looks_flat(document: dict[str, Any]) -> bool:
    """Flat if the first entry has an ``snr`` or a ``type`` text; a group of the other layout holds numbers only."""
    first = next(iter(document.values()))
    return isinstance(first, dict) and ("snr" in first or isinstance(first.get("type"), str))


def _flat_entries(document: dict[str, Any], source: str) -> Iterator[tuple[str, str, float]]:
    for name, entry in document.items():
        if not isinstance(entry, dict):
            raise ScanFileError(
                f"{source}: module {name!r}: expected an object with 'snr' and 'type', found {_kind(entry)}"
            )
        for key in ("snr", "type"):
            if key not in entry:
                raise ScanFileError(f"{source}: module {name!r}: field {key!r}: expected a value, found none")
        if not isinstance(entry["type"], str):
            raise ScanFileError(
                f"{source}: module {name!r}: field 'type': expected a text, found {_kind(entry['type'])}"
            )
        yield name, entry["type"], _score(entry["snr"], name, source)


def _sorted_entries(document: dict[str, Any], source: str) -> Iterator[tuple[str, str, float]]:
    for type_, group in document.items():
        if not isinstance(group, dict):
            raise ScanFileError(
                f"{source}: entry {type_!r}: expected a scan of this package ('schema', 'modules'), a published result "
                f"{{module: {{'snr', 'type'}}}} or its sorted form {{type: {{module: snr}}}}, found {_kind(group)}"
            )
        for name, score in group.items():
            yield name, type_, _score(score, name, source)


def _score(value: Any, name: str, source: str) -> float:
    if not name:
        raise ScanFileError(f"{source}: expected a module name, found an empty one")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScanFileError(f"{source}: module {name!r}: field 'snr': expected a number, found {_kind(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ScanFileError(f"{source}: module {name!r}: field 'snr': expected a number, found one too large") from None


def _kind(value: Any) -> str:
    """A short description of a JSON value for messages."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
