"""Scores in the two JSON layouts of the reference implementation. axolotl's Spectrum plugin reads the flat one.

A noise-free module is written as the bare word ``Infinity``, which strict JSON does not have but the readers of these
files expect. Tensors without a score are left out: the layout has no place for a reason.
"""

from __future__ import annotations

import json

from spectrum_fast.scoring.records import ScanRecord


def format_reference(scan: ScanRecord) -> str:
    """``{module: {"snr": number, "type": type}}``, indent 4, modules in scan order, no line break at the end."""
    return json.dumps(
        {module.name: {"snr": module.rank_value, "type": module.type} for module in scan.modules}, indent=4
    )


def format_reference_sorted(scan: ScanRecord) -> str:
    """``{type: {module: snr}}``, indent 4: types in scan order, modules by falling score (equal ones in scan order)."""
    groups = {
        name: {module.name: module.rank_value for module in sorted(members, key=lambda module: -module.rank_value)}
        for name, members in scan.by_type().items()
    }
    return json.dumps(groups, indent=4)
