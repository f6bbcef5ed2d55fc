"""``spectrum-fast scan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_fast.cli.consoles import WIDE_COLUMNS, err, out, say, show

if TYPE_CHECKING:
    from spectrum_fast.selection.scan_result import Scan

HELP = """Score every weight matrix of a checkpoint.

\b
Example: spectrum-fast scan meta-llama/Llama-3.1-8B --out scan.json"""

DEFAULT_TOLERANCE = 1e-4
"""The engine's, written out so that ``--help`` need not load the engine; a test holds them equal."""
_SHOWN = 20
"""Failures named on stderr; the scan file names all of them."""


def scan(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint folder, .safetensors file, or hub id org/name.")
    ],
    out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Scan file to write (JSON).")] = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="auto, band or svd.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, float32 or float64.")] = "auto",
    criterion: Annotated[
        str, typer.Option(metavar="NAME", help="spectrum (published rule) or mp (true noise edge).")
    ] = "spectrum",
    tolerance: Annotated[
        float, typer.Option(metavar="X", help="Relative accuracy wanted of the scores.")
    ] = DEFAULT_TOLERANCE,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Scan only modules like this ('*.mlp.*', 're:...'); repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Leave these modules out; repeatable.")
    ] = None,
    include_norms: Annotated[bool, typer.Option("--include-norms", help="Score 1-D weights too.")] = False,
    top_percent: Annotated[
        float, typer.Option(metavar="P", help="Share of each type that the table marks as taken.")
    ] = 25.0,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Run a scan, write its file, show its table."""
    from spectrum_fast.cli.output import require_writable, save_scan
    from spectrum_fast.report.progress import ScanMeter
    from spectrum_fast.report.table import scan_table
    from spectrum_fast.scanning import scan as run_scan
    from spectrum_fast.selection.ranking import check_percent

    check_percent(top_percent)
    if out_file is not None:
        require_writable(out_file, "--out")
    with ScanMeter(err, quiet=quiet) as meter:
        result = run_scan(
            model,
            criterion=criterion,
            method=method,
            precision=precision,
            tolerance=tolerance,
            device=device,
            include=include or (),
            exclude=exclude or (),
            include_norms=include_norms,
            threads=threads,
            progress=meter,
        )
    try:
        if out_file is not None:
            save_scan(result, out_file)
            if not quiet:
                say(f"wrote {out_file}")
    finally:  # a file that cannot be written takes nothing else with it
        _report_problems(result, tolerance)
        if not quiet:
            selection = result.select(top_percent, allow_incomplete=True) if result.modules else None
            show(scan_table(result, selection, wide=out.width >= WIDE_COLUMNS))
    if result.failures:
        raise typer.Exit(1)


def _report_problems(result: Scan, tolerance: float) -> None:
    """Name on stderr what has no score, and what has one that is less sure than was asked."""
    for failure in result.failures[:_SHOWN]:
        say(f"failed: {failure.message}", style="red")
    if len(result.failures) > _SHOWN:
        say(f"failed: and {len(result.failures) - _SHOWN} more, all named in the scan file (--out)", style="red")
    unsure = [module for module in result.modules if (module.error_bound or 0.0) > tolerance]
    if unsure:
        worst = max(unsure, key=lambda module: module.error_bound or 0.0)
        say(
            f"warning: {len(unsure)} scores are less sure than the tolerance {tolerance:.0e}; the worst is "
            f"{worst.name}, bound {worst.error_bound:.1e}",
            style="yellow",
        )
