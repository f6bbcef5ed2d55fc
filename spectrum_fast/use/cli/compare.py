"""``spectrum-fast compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import show


def compare(
    scan_a: Annotated[Path, typer.Argument(metavar="SCAN_A", help="First scan file.")],
    scan_b: Annotated[Path, typer.Argument(metavar="SCAN_B", help="Second scan file.")],
    top_percent: Annotated[float, typer.Option(metavar="P", help="Share of each type for the overlap.")] = 25.0,
) -> None:
    """Compare two scans: score differences, rank correlation, selection overlap.

    \b
    Example: spectrum-fast compare base.json instruct.json
    """
    from spectrum_fast.choose.selection.scan_result import load_scan
    from spectrum_fast.use.report.comparison import comparison_table

    show(comparison_table(load_scan(scan_a).compare(load_scan(scan_b), top_percent), (str(scan_a), str(scan_b))))
