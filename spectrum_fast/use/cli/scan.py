"""``spectrum-fast scan``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.use.cli.options import with_options


@with_options
def scan(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder, .safetensors file, hub id org/name, https://, s3:// or gs://."),
    ],
    options: ScanOptions,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Score one part of N alone (0/4, 1/4...); see merge.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be scored, and for how long.")] = False,
    no_journal: Annotated[
        bool, typer.Option("--no-journal", help="Keep none: an interrupted scan begins anew.")
    ] = False,
    timing: Annotated[Path | None, typer.Option(metavar="FILE", help="Write times and rates there (JSON).")] = None,
    json_progress: Annotated[
        str, typer.Option("--json-progress", metavar="FILE", help="Progress as JSON lines; - is stderr.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Score every weight matrix of a checkpoint.

    \b
    Example: spectrum-fast scan meta-llama/Llama-3.1-8B --out scan.json
    """
    from spectrum_fast.errors import UsageError
    from spectrum_fast.measure.ops.dispatch import GET_EXTENSION, native_problem
    from spectrum_fast.scanning.parts import parse_part
    from spectrum_fast.scanning.ranks import find_rank
    from spectrum_fast.use.cli.consoles import say
    from spectrum_fast.use.cli.output import require_writable
    from spectrum_fast.use.cli.scan_session import ScanSession

    if dry_run:
        _show_plan(model, options)
        return
    if timing is not None:
        require_writable(timing, "--timing")
    rank = find_rank() if part is None else None
    own = parse_part(part) if part is not None else None if rank is None else rank.part
    if options.ray is not None and own is not None:
        raise UsageError("--ray shares the whole scan itself; leave out --part, or start one process alone")
    follows = rank is not None and rank.part.number > 0
    # Words for people would stand between the lines for programs.
    words = not quiet and json_progress != "-" and not follows
    if words and options.device == "cpu" and (problem := native_problem()):
        say(  # a scan without the compiled extension is right and slow; whoever waits should know why
            f"note: the compiled extension does not load ({problem}): each matrix takes 2 to 25 times as long; "
            + GET_EXTENSION,
            "yellow",
        )
    session = ScanSession(
        model,
        options,
        own,
        keep_journal=not no_journal,
        timing=timing,
        json_progress="" if follows else json_progress,
        quiet=quiet,
        words=words,
    )
    if session.run(rank):
        raise typer.Exit(1)


def _show_plan(model: str, options: ScanOptions) -> None:
    """What a scan would do. Of a hub id that is not in the cache headers and a few weights are read, none stored."""
    from spectrum_fast.read.checkpoint.hub import is_cached
    from spectrum_fast.scanning.prediction import predict_scan
    from spectrum_fast.scanning.scoring import open_and_plan
    from spectrum_fast.use.cli.consoles import show
    from spectrum_fast.use.report.scan_plan import scan_plan_table

    options = replace(options, no_store=options.no_store or not is_cached(model))
    checkpoint, plan = open_and_plan(model, options)
    show(scan_plan_table(checkpoint, plan, predict_scan(plan, options), spectra=options.spectra))
