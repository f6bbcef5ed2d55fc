"""``spectrum-fast report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.errors import UsageError
from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.options import SliderStart


def report(
    scans: Annotated[
        list[Path], typer.Argument(metavar="SCAN...", help="Scan files; of two or more, the page compares any pair.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")],
    top_percent: SliderStart = 25.0,
) -> None:
    """Write a report on one scan, or on several compared, as one HTML file.

    \b
    Example: spectrum-fast report scan.json -o report.html
    """
    from spectrum_fast.choose.selection.scan_result import load_scan
    from spectrum_fast.use.cli.output import require_writable
    from spectrum_fast.use.report.html.write import write_report

    for scan in scans:
        if output.exists() and scan.exists() and output.samefile(scan):
            raise UsageError(f"--output {output}: expected another file than a scan that is read; choose another name")
    require_writable(output, "--output", kind="an HTML file")
    write_report(
        [load_scan(scan) for scan in scans], output, top_percent=top_percent, files=[str(scan) for scan in scans]
    )
    say(f"wrote {output}")
