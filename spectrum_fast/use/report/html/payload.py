"""Scans as columns: what the page is given. Plain JSON values, one list a field, so that 45,000 modules stay small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.choose.selection.presented_scan import relation_of
from spectrum_fast.choose.selection.ranking import GROUPINGS, group_name, rank_modules, towers_of
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.select import tables_of
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import quantities_of
from spectrum_fast.measure.scoring.json_fields import type_of
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.scoring.tail_exponent import fitted_tail
from spectrum_fast.measure.spectra.record import SpectralSummary
from spectrum_fast.read.checkpoint.naming import expert_index, layer_index, module_type
from spectrum_fast.use.report.thresholds import find_thresholds
from spectrum_fast.version import __version__

NUMBERS = tuple(
    key for key, hint in get_type_hints(SpectralSummary).items() if type_of(hint)[0] in (float, int) and key != "snr"
)
"""Functionals of a spectrum that are numbers; each is a column of the page."""
MOST_MEASURED = 2000
"""Modules up to which the numbers of other criteria are shown: a tail is fitted in some hundredths of a second."""
_TAIL_POINTS = 96
_DIGITS = 7
"""Significant digits of what is only looked at; scores keep every bit, for the page compares them."""


def build_payload(scans: Sequence[Scan], *, top_percent: float, labels: Sequence[str]) -> dict[str, Any]:
    """All that the page shows.

    Args:
        scans: one or more.
        top_percent: where the slider stands at first.
        labels: what to call each scan, one each.
    """
    return {
        "version": __version__,
        "top_percent": top_percent,
        "groupings": list(GROUPINGS),
        "scans": [_scan_columns(scan, label) for scan, label in zip(scans, labels, strict=True)],
    }


def make_labels(scans: Sequence[Scan], files: Sequence[str]) -> list[str]:
    """A short name for each scan: the last part of the model's, with the file's where that is not unique."""
    labels = [(PurePath(scan.model).name or scan.model) + relation_of(scan) for scan in scans]
    return [
        label if labels.count(label) == 1 else f"{label} ({PurePath(file).name})"
        for label, file in zip(labels, files, strict=True)
    ]


def _scan_columns(scan: Scan, label: str) -> dict[str, Any]:
    """One scan; the modules that compete come first, then the parts of those that are fused."""
    try:
        competing, fused = competing_modules(scan), "parameter"
    except UsageError:  # a file of another program that does not tell the sums of the parts
        competing, fused = scan.modules, "parts"
    at_stake = {module.name for module in competing}
    modules = (*competing, *(module for module in scan.modules if module.name not in at_stake))
    scored = {module.name for module in scan.modules}
    unit = {module.parameter: index for index, module in enumerate(competing) if module.name not in scored}
    tower_of = towers_of(scan)
    kinds, type_of = _coded((module.type, tower_of[module.name], module.name == module.type) for module in modules)
    grouped = {
        grouping: [group_name(kind, grouping, tower, kind if is_name else "") for kind, tower, is_name in kinds]
        for grouping in ("type", "experts-merged", "reference")
    }
    words = ("shape", "dtype", "method", "note")
    coded = {word: _coded(getattr(module, word) for module in modules) for word in words}
    tables = tables_of(tower_of)
    place = {module.name: index for index, module in enumerate(rank_modules(modules))}
    both = [find_thresholds(module) for module in modules]
    return {
        "label": label,
        "model": scan.model + relation_of(scan),
        "criterion": scan.criterion,
        "published": scan.published,
        "fused": fused,
        "competing": len(competing),
        "unit": [
            index if index < len(competing) else unit.get(module.parameter, -1) for index, module in enumerate(modules)
        ],
        "types": grouped["type"],
        "merged": grouped["experts-merged"],
        "bare": grouped["reference"],
        "towers": [tower for _, tower, _ in kinds],
        **{f"{word}s": distinct for word, (distinct, _) in coded.items()},
        "name": [module.name for module in modules],
        "type": type_of,
        "layer": [_or_minus_one(layer_index(module.name)) for module in modules],
        "expert": [_or_minus_one(expert_index(module.name)) for module in modules],
        "snr": [module.snr for module in modules],
        "order": [place[module.name] for module in modules],
        "always": [int(module.name in tables) for module in modules],
        **{word: column for word, (_, column) in coded.items()},
        "numbers": list(NUMBERS),
        **{key: [_number(key, getattr(module, key)) for module in modules] for key in NUMBERS},
        "quantities": _quantities(modules),
        "tails": _tails(modules),
        "threshold_spectrum": [_short(found.spectrum if found else None) for found in both],
        "threshold_mp": [_short(found.mp if found else None) for found in both],
        "histogram": [_histogram(module) for module in modules],
        "failures": [
            {
                "name": failure.name,
                "type": group_name(module_type(failure.name), "experts-merged", tower_of[failure.name], failure.name),
                "layer": _or_minus_one(layer_index(failure.name)),
                "kind": failure.kind,
                "message": failure.message,
            }
            for failure in scan.failures
        ],
        "ties": [[copy, original] for copy, original in scan.ties.items()],
        "ties_always": [copy for copy in scan.ties if copy in tables],
        "skipped": [[reason, count] for reason, count in Counter(entry.reason for entry in scan.skipped).most_common()],
        "provenance": dict(scan.provenance),
    }


def _quantities(modules: Sequence[ModuleScore]) -> dict[str, list[float | None]]:
    """A column for each criterion that is a number of the spectrum and that some module has; tails only where few."""
    found = [quantities_of(module) for module in modules] if len(modules) <= MOST_MEASURED else []
    names = dict.fromkeys(name for one in found for name in one)
    return {name: [_short(one.get(name)) for one in found] for name in names}


def _tails(modules: Sequence[ModuleScore]) -> list[list[list[float]] | None] | None:
    """Of each module that has all its values: some of them with their ranks, close at the top; and the fitted tail."""
    if len(modules) > MOST_MEASURED:
        return None
    tails = [module.singular_values and _tail(module.singular_values.values) for module in modules]
    return tails if any(tails) else None


def _tail(values: npt.NDArray[np.float64]) -> list[list[float]]:
    ranks = np.unique(np.geomspace(1, len(values), _TAIL_POINTS).round().astype(int))
    points = ranks.tolist(), values[ranks - 1], fitted_tail(values) or ()
    return [[_short(float(number)) or 0.0 for number in numbers] for numbers in points]


def _coded(values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Distinct values in order of appearance, and which of them each value is."""
    codes: dict[Any, int] = {}
    column = [codes.setdefault(value, len(codes)) for value in values]
    return list(codes), column


def _number(key: str, value: float | None) -> float | None:
    """A column's value: counts as they are, and so is the bound, which the page decides cuts by."""
    return value if key == "error_bound" or isinstance(value, int) else _short(value)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _histogram(module: ModuleScore) -> list[Any] | None:
    """``[start, knee, end, linear_bins, [counts]]``, None where there is none."""
    found = module.histogram
    if found is None:
        return None
    return [_short(found.start), _short(found.knee), _short(found.end), found.linear_bins, list(found.counts)]


def _or_minus_one(index: int | None) -> int:
    return -1 if index is None else index
