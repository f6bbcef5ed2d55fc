"""``spectrum-fast show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.errors import UsageError
from spectrum_fast.use.cli import consoles


def show(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file.")],
    module: Annotated[str, typer.Argument(metavar="MODULE", help="Name of a module, or of its weight.")],
) -> None:
    """Draw the spectrum of one module of a scan and show its numbers.

    \b
    Example: spectrum-fast show scan.json model.layers.0.mlp.down_proj
    """
    from spectrum_fast.choose.selection.scan_result import load_scan
    from spectrum_fast.use.report.module_view import module_view

    record = load_scan(scan)
    try:
        found = record[module]
    except KeyError as missing:
        raise UsageError(f"scan of {record.model}: {missing.args[0]}") from missing
    consoles.show(module_view(record, found))
