"""The end of a command that makes a scan: its file is written, its problems are named, its table is shown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import ScanFileError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.measure.scoring.records import ScanFailure
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.use.cli.consoles import WIDE_COLUMNS, out, say, show
from spectrum_fast.use.report.scan_map import scan_map
from spectrum_fast.use.report.table import scan_table
from spectrum_fast.words import count_of

_SHOWN = 20
"""Failures named on stderr; the scan file names all of them."""


def end_scan(
    result: Scan,
    save: Callable[[Scan], Path],
    options: ScanOptions,
    *,
    timing: Path | None = None,
    quiet: bool,
    words: bool,
) -> None:
    """Save a scan and show it.

    Raises:
        ScanFileError: a file cannot be written; that takes nothing else with it.
    """
    try:
        path = save(result)
        if words:
            say(f"wrote {path}\nnext: spectrum-fast select {shlex.quote(str(path))} --for axolotl -o unfrozen.yaml")
        if timing is not None:
            write_timing(result.run, timing)
    finally:
        _name_problems(result, options.tolerance)
        if not quiet:
            selection = result.select(options.top_percent or 25, allow_incomplete=True) if result.modules else None
            show(scan_table(result, selection, wide=out.width >= WIDE_COLUMNS))
            overview = scan_map(result, selection)
            if overview is not None:
                show(overview)


def write_timing(facts: Mapping[str, Any], path: Path) -> None:
    """Write what passed by in making a scan as one JSON object.

    Raises:
        ScanFileError: the file cannot be written.
    """
    write_text_atomic(path, json.dumps(dict(facts), indent=2, allow_nan=False) + "\n", error=ScanFileError)


def name_failures(failures: tuple[ScanFailure, ...]) -> None:
    """Name on stderr what has no score."""
    for failure in failures[:_SHOWN]:
        say(f"failed: {failure.message}", style="red")
    if len(failures) > _SHOWN:
        say(f"failed: and {len(failures) - _SHOWN} more, all named in the scan file (--out)", style="red")


def _name_problems(result: Scan, tolerance: float) -> None:
    """Name what has no score, and what has one that is less sure than was asked."""
    for note in result.run.get("reading_notes", ()):
        say(f"note: {note}")
    name_failures(result.failures)
    unsure = [module for module in result.modules if (module.error_bound or 0.0) > tolerance]
    if unsure:
        worst = max(unsure, key=lambda module: module.error_bound or 0.0)
        count = count_of(len(unsure), "score is", "scores are")
        say(
            f"warning: {count} less sure than the tolerance {tolerance:.0e}; the worst is "
            f"{worst.name}, bound {worst.error_bound:.1e}",
            style="yellow",
        )
