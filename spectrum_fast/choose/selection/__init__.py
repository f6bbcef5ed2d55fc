"""From scores to the modules that are trained: ranking, groups, application to a model, every interchange format."""

from __future__ import annotations

from spectrum_fast.choose.selection.ambiguity import export_warnings
from spectrum_fast.choose.selection.apply import AppliedSelection
from spectrum_fast.choose.selection.compare import ScanComparison, compare_scans
from spectrum_fast.choose.selection.formats import (
    FORMATS,
    SCAN_FORMATS,
    SELECTION_FORMATS,
    load_selection,
    reference_file_names,
    save_selection,
    slug,
    write_selection,
)
from spectrum_fast.choose.selection.ranking import GROUPINGS, ROUNDINGS
from spectrum_fast.choose.selection.records import SelectedModule, Selection, SelectionGroup
from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.choose.selection.select import select_modules

__all__ = [
    "FORMATS",
    "GROUPINGS",
    "ROUNDINGS",
    "SCAN_FORMATS",
    "SELECTION_FORMATS",
    "AppliedSelection",
    "Scan",
    "ScanComparison",
    "SelectedModule",
    "Selection",
    "SelectionGroup",
    "compare_scans",
    "export_warnings",
    "load_scan",
    "load_selection",
    "reference_file_names",
    "save_selection",
    "select_modules",
    "slug",
    "write_selection",
]
