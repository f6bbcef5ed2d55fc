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
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from spectrum_fast.checks import OBJECT, TEXT, Check, is_number
from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.errors import ScanFileError
from spectrum_fast.measure.scoring.json_fields import Place
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan


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

    Raises:
        ScanFileError: neither layout, an empty result, or an entry that is not what its layout asks for.
    """
    place = Place(source, ScanFileError)
    if not isinstance(document, dict) or not document:
        raise ScanFileError(f"{source}: expected an object of scores, found {json.dumps(document)[:60]}")
    first = next(iter(document.values()))  # a group of the sorted layout holds numbers only
    is_flat = isinstance(first, dict) and ("snr" in first or isinstance(first.get("type"), str))
    modules: list[ModuleScore] = []
    failures: list[ScanFailure] = []
    for name, kind, score in (_flat_entries if is_flat else _sorted_entries)(document, place):
        if not name or not kind:
            raise ScanFileError(f"{source}: module {name!r} of type {kind!r}: expected names, found an empty one")
        if math.isnan(score):
            failures.append(ScanFailure(name=name, kind="nan", message="the published score is NaN"))
        else:
            noise_free = score == math.inf
            snr = None if noise_free else float(score)
            modules.append(ModuleScore(name=name, type=kind, snr=snr, noise_free=noise_free))
    if not modules and not failures:
        raise ScanFileError(f"{source}: expected scores, found only empty groups")
    return {
        "model": slug_of_file(source),
        "criterion": "spectrum",
        "modules": tuple(modules),
        "failures": tuple(failures),
        "provenance": {"source": "published", "layout": "flat" if is_flat else "sorted", "file": PurePath(source).name},
    }


def _flat_entries(document: dict[str, Any], place: Place) -> Iterator[tuple[str, str, float]]:
    for name in document:
        entry = place.read(document, name, _MODULE)
        own = replace(place, entry=f"module {name!r}")
        yield name, own.read(entry, "type", TEXT), own.read(entry, "snr", _SCORE)


def _sorted_entries(document: dict[str, Any], place: Place) -> Iterator[tuple[str, str, float]]:
    for kind in document:
        group = place.read(document, kind, _GROUP)
        for name in group:
            yield name, kind, replace(place, entry=f"type {kind!r}").read(group, name, _SCORE)


def _is_score(value: Any) -> bool:
    return (is_number(value) and value >= 0) or (isinstance(value, float) and (math.isnan(value) or value == math.inf))


_SCORE = Check(_is_score, "a number >= 0")
_MODULE = Check(OBJECT.test, "an object with 'snr' and 'type'")
_GROUP = Check(
    OBJECT.test,
    "a scan of this package ('schema', 'modules'), a published result {module: {'snr', 'type'}} or its sorted form "
    "{type: {module: snr}}",
)
