"""``spectrum-fast fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.use.cli.options import with_options


@with_options
def fleet(
    models: Annotated[
        str, typer.Argument(metavar="LIST", help="File with a checkpoint a line, FOLDER/*, or ORG/* of the hub.")
    ],
    library: Annotated[Path, typer.Option(metavar="FOLDER", help="Library to scan into; made if not there.")],
    options: ScanOptions,
    attempts: Annotated[int, typer.Option(metavar="N", min=1, help="Times that a failing checkpoint is tried.")] = 3,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the table of failures.")] = False,
) -> None:
    """Scan many checkpoints into a library; the same command goes on.

    \b
    Example: spectrum-fast fleet models.txt --library scans
    """
    from spectrum_fast.errors import UsageError
    from spectrum_fast.scanning.fleet import FleetOutcome, scan_fleet
    from spectrum_fast.scanning.fleet_list import list_models
    from spectrum_fast.use.cli.consoles import say, show
    from spectrum_fast.use.cli.interrupts import terminable
    from spectrum_fast.use.report.library_table import failure_table

    if options.out is not None:
        raise UsageError("--out: expected none, since every scan is filed in --library under its own name")
    if options.minus or options.plus:
        raise UsageError(
            "--minus, --plus: expected none, since every model has a base of its own; scan them one by one"
        )
    listed = list_models(models)

    def tell(outcome: FleetOutcome) -> None:
        if not quiet:
            text = f"{outcome.state}: {outcome.model.name}: {outcome.detail} ({outcome.seconds:.1f} s)"
            say(text, style="red" if outcome.state == "failed" else None)

    try:
        with terminable():
            outcomes = scan_fleet(listed, library, options, attempts=attempts, tell=tell)
    except KeyboardInterrupt as interrupt:
        words = f"interrupted: complete scans are in {library}, the others go on with the same command"
        raise type(interrupt)(words) from interrupt
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("scanned", "kept", "failed")}
    say(f"{len(outcomes)} checkpoints: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts["failed"]:
        show(failure_table(outcome for outcome in outcomes if outcome.state == "failed"))
        raise typer.Exit(1)
