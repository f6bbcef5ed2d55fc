"""``spectrum-fast scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.cli.consoles import WIDE_COLUMNS, err, out
from spectrum_fast.report.progress import ScanMeter
from spectrum_fast.report.table import scan_table
from spectrum_fast.scanning import scan as run_scan
from spectrum_fast.spectra.engine import DEFAULT_TOLERANCE

HELP = """Score every weight matrix of a checkpoint.

Example: spectrum-fast scan meta-llama/Llama-3.1-8B --out scan.json --top-percent 25"""


def scan(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, .safetensors file, or hub id org/name.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="Scan file to write (JSON).")] = None,
    method: Annotated[str, typer.Option(help="auto, band or svd.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or float64.")] = "auto",
    criterion: Annotated[str, typer.Option(help="spectrum (published rule) or mp (true noise edge).")] = "spectrum",
    tolerance: Annotated[float, typer.Option(help="Relative accuracy of the scores.")] = DEFAULT_TOLERANCE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    include: Annotated[list[str] | None, typer.Option(help="Scan only modules like this; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave these modules out; repeatable.")] = None,
    include_norms: Annotated[bool, typer.Option("--include-norms", help="Score 1-D weights too.")] = False,
    top_percent: Annotated[float, typer.Option(help="Share of each type marked as taken in the table.")] = 25.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Run a scan, write its file, show its table."""
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
    if out_file is not None:
        result.save(out_file)
        if not quiet:
            err.print(f"wrote {out_file}", highlight=False, markup=False, soft_wrap=True)
    if not quiet:
        selection = result.select(top_percent, allow_incomplete=True) if result.modules else None
        out.print(scan_table(result, selection, wide=out.width >= WIDE_COLUMNS))
    for failure in result.failures:
        err.print(f"failed: {failure.message}", style="red", markup=False, highlight=False, soft_wrap=True)
    if result.failures:
        raise typer.Exit(1)
