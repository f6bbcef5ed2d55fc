"""``spectrum-fast select``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.cli.consoles import err
from spectrum_fast.selection.ambiguity import export_warnings
from spectrum_fast.selection.formats import SCAN_FORMATS, save_selection, write_selection
from spectrum_fast.selection.scan_result import load_scan

HELP = """Choose the best modules of each group from a scan.

Example: spectrum-fast select scan.json --top-percent 25 --format axolotl -o unfrozen.yaml"""


def select(
    scan: Annotated[Path, typer.Argument(help="Scan file, ours or a published snr_results_*.json.")],
    top_percent: Annotated[float, typer.Option(help="Share of each group, in (0, 100].")] = 25.0,
    output_format: Annotated[
        str, typer.Option("--format", help="json, axolotl, reference, reference-sorted, peft or names.")
    ] = "json",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; default is stdout.")] = None,
    grouping: Annotated[str, typer.Option(help="type, experts-merged or global.")] = "type",
    rounding: Annotated[str, typer.Option(help="reference, floor or ceil.")] = "reference",
    include: Annotated[list[str] | None, typer.Option(help="Only modules like this; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not these modules; repeatable.")] = None,
    always: Annotated[
        list[str] | None,
        typer.Option(help="default (embeddings, lm_head), none, or patterns of modules to train; repeatable."),
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Select although some tensors failed.")
    ] = False,
) -> None:
    """Select and write."""
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
    )
    source = record if output_format in SCAN_FORMATS else selection
    if output is None:
        sys.stdout.write(write_selection(source, output_format))
        sys.stdout.flush()
    else:
        save_selection(source, output, output_format)
        err.print(selection.summary(), markup=False, highlight=False, soft_wrap=True)
    for warning in export_warnings(selection, record, output_format):
        err.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
