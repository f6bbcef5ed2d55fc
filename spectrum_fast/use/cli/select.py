"""``spectrum-fast select``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.errors import UsageError
from spectrum_fast.use.cli.consoles import say

HELP = """Choose the best modules of each group from a scan.

\b
Example: spectrum-fast select scan.json --format axolotl -o unfrozen.yaml"""


def select(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file, ours or a published snr_results_*.json.")],
    top_percent: Annotated[float, typer.Option(metavar="P", help="Share of each group, in (0, 100].")] = 25.0,
    output_format: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="json, axolotl, reference, reference-sorted, peft or names."),
    ] = "json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; default is stdout.")
    ] = None,
    grouping: Annotated[str, typer.Option(metavar="NAME", help="type, experts-merged or global.")] = "type",
    fused: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Fused experts compete as one parameter (parameter) or each by itself (parts)."
        ),
    ] = "parameter",
    rounding: Annotated[str, typer.Option(metavar="NAME", help="reference, floor or ceil.")] = "reference",
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only modules like this; repeatable.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Not these modules; repeatable.")] = None,
    always: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="default (embeddings, lm_head), none, or modules to train anyway; repeatable."
        ),
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Select although some tensors failed.")
    ] = False,
) -> None:
    """Select and write."""
    from spectrum_fast.choose.selection.ambiguity import export_warnings
    from spectrum_fast.choose.selection.formats import SCAN_FORMATS, save_selection, write_selection
    from spectrum_fast.choose.selection.scan_result import load_scan

    if output is not None and output.exists() and scan.exists() and output.samefile(scan):
        raise UsageError(f"--output {output}: expected another file than the scan that is read; choose another name")
    record = load_scan(scan)
    rule = "default" if not always else always[0] if always in (["default"], ["none"]) else always
    selection = record.select(
        top_percent,
        grouping=grouping,
        rounding=rounding,
        include=include or (),
        exclude=exclude or (),
        always=rule,
        allow_incomplete=allow_incomplete,
        fused=fused,
    )
    source = record if output_format in SCAN_FORMATS else selection
    if output is None:
        sys.stdout.write(write_selection(source, output_format))
        sys.stdout.flush()
    else:
        save_selection(source, output, output_format)
        say(selection.summary())
    for warning in export_warnings(selection, record, output_format):
        say(f"warning: {warning}", style="yellow")
