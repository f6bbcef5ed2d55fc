"""Scores in the two JSON layouts of the reference implementation. axolotl's Spectrum plugin reads the flat one.

A noise-free module is written as the bare word ``Infinity``, which strict JSON does not have but the readers of these
files expect. Tensors without a score are left out: the layout has no place for a reason. Fused parameters stand here
under their own names with one score (:mod:`spectrum_fast.measure.scoring.fused`), because readers free what is named
and no parameter has the name of a part.
"""

from __future__ import annotations

import json

from spectrum_fast.measure.scoring.fused import competing_modules
from spectrum_fast.measure.scoring.records import ScanRecord


def format_reference(scan: ScanRecord) -> str:
    """``{module: {"snr": number, "type": type}}``, indent 4, modules in scan order, no line break at the end."""
    return json.dumps(
        {module.name: {"snr": module.rank_value, "type": module.type} for module in competing_modules(scan)}, indent=4
    )


def format_reference_sorted(scan: ScanRecord) -> str:
    """``{type: {module: snr}}``, indent 4: types in scan order, modules by falling score (equal ones in scan order)."""
    groups: dict[str, dict[str, float]] = {module.type: {} for module in competing_modules(scan)}
    for module in sorted(competing_modules(scan), key=lambda module: -module.rank_value):
        groups[module.type][module.name] = module.rank_value
    return json.dumps(groups, indent=4)
