"""``spectrum-fast scan``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.use.cli.consoles import WIDE_COLUMNS, err, out, say, show
from spectrum_fast.use.cli.options import with_options

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.use.report.step import ScanProgress

HELP = """Score every weight matrix of a checkpoint.

\b
Example: spectrum-fast scan meta-llama/Llama-3.1-8B --out scan.json"""

_SHOWN = 20
"""Failures named on stderr; the scan file names all of them."""


@with_options
def scan(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder, .safetensors file, hub id org/name, https://, s3:// or gs://."),
    ],
    options: ScanOptions,
    no_journal: Annotated[
        bool, typer.Option("--no-journal", help="Keep none: an interrupted scan begins anew.")
    ] = False,
    timing: Annotated[Path | None, typer.Option(metavar="FILE", help="Write times and rates there (JSON).")] = None,
    json_progress: Annotated[
        str, typer.Option("--json-progress", metavar="FILE", help="Progress as JSON lines; - is stderr.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Run a scan, write its file, show its table."""
    from spectrum_fast.scanning.ranks import find_rank
    from spectrum_fast.use.cli.long_scan import LongScan, write_timing
    from spectrum_fast.use.cli.output import require_writable
    from spectrum_fast.use.report.json_progress import open_json_meter
    from spectrum_fast.use.report.progress import ScanMeter
    from spectrum_fast.use.report.scan_map import scan_map
    from spectrum_fast.use.report.table import scan_table

    if timing is not None:
        require_writable(timing, "--timing")
    rank = find_rank()
    run = LongScan(model, options, keep_journal=not no_journal, rank=rank)
    with run:
        if rank is not None and rank.rank > 0:
            run.follow()
            return
        # Words for people would stand between the lines for programs.
        words = not quiet and json_progress != "-"
        with ScanMeter(err, quiet=not words) as meter, open_json_meter(json_progress, sys.stderr) as json_meter:

            def show_progress(step: ScanProgress) -> None:
                meter(step)
                json_meter(step)

            result = run.run(show_progress)
        try:
            if options.out is not None:
                run.save(result)
                if words:
                    say(f"wrote {options.out}")
            if timing is not None:
                write_timing(result, timing)
        finally:  # a file that cannot be written takes nothing else with it
            _report_problems(result, options.tolerance)
            if not quiet:
                selection = result.select(options.top_percent or 25, allow_incomplete=True) if result.modules else None
                show(scan_table(result, selection, wide=out.width >= WIDE_COLUMNS))
                overview = scan_map(result, selection)
                if overview is not None:
                    show(overview)
    if result.failures and not (rank is not None and rank.restarts):
        raise typer.Exit(1)


def _report_problems(result: Scan, tolerance: float) -> None:
    """Name on stderr what has no score, and what has one that is less sure than was asked."""
    for note in result.run.get("reading_notes", ()):
        say(f"note: {note}")
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
