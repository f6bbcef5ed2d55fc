"""``spectrum-fast scans``: a library of scans in a folder or a dataset on the hub."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import hand_out, say, show
from spectrum_fast.use.cli.options import Output

HELP = """A library of scans, in a folder or a dataset on the hub.

\b
Example: spectrum-fast scans list model_snr_results"""

Place = Annotated[
    str, typer.Argument(metavar="LIBRARY", help="Folder, or hub dataset: org/name or hf://datasets/org/name.")
]

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)


@app.command("list", short_help="List the scans of a library.")
def list_scans(
    library: Place,
    names_only: Annotated[bool, typer.Option("--names-only", help="Do not open the files.")] = False,
) -> None:
    """List the scans of a library; a broken file is named, and is exit code 1.

    \b
    Example: spectrum-fast scans list model_snr_results
    """
    from spectrum_fast.choose.library import open_library
    from spectrum_fast.use.report.library_table import library_table

    entries = open_library(library).entries(read=not names_only)
    if not entries:
        say(f"{library}: no file here is named snr_results_*.json or scan_*.json")
        return
    show(library_table(entries))
    for entry in entries:
        if entry.problem:
            say(f"failed: {entry.problem}", style="red")
    if any(entry.problem for entry in entries):
        raise typer.Exit(1)


@app.command("get", short_help="Write the scan file of a model.")
def get_scan(
    library: Place,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name, or its slug in the file name.")],
    criterion: Annotated[str, typer.Option(metavar="NAME", help="spectrum or mp.")] = "spectrum",
    output: Output = None,
) -> None:
    """Write the scan file of a model.

    \b
    Example: spectrum-fast scans get model_snr_results Qwen/Qwen2-7B -o scan.json
    """
    from spectrum_fast.choose.library import open_library
    from spectrum_fast.errors import ScanFileError

    hand_out(open_library(library).read(model, criterion), output, ScanFileError)


@app.command("add", short_help="Put a scan into a library.")
def add_scan(
    library: Place,
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file, ours or a published one.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="File it under this name; default is the scan's own.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a scan of the same model.")] = False,
) -> None:
    """Put a scan into a library, whole and in the reference's layout.

    \b
    Example: spectrum-fast scans add model_snr_results scan.json --model org/name
    """
    from spectrum_fast.choose.library import open_library
    from spectrum_fast.choose.selection.scan_result import load_scan

    opened = open_library(library)
    for name in opened.add(load_scan(scan), model=model, replace=replace):
        say(f"wrote {name} in {opened.where}")


@app.command("find", short_help="Find modules in all scans.")
def find_modules(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="Folder; its index is kept in index.sqlite.")],
    model: Annotated[str | None, typer.Option(metavar="PATTERN", help="Models like this ('Qwen/*').")] = None,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="NAME", help="Modules of this type (v_proj, 'mlp.*').")
    ] = None,
    criterion: Annotated[str | None, typer.Option(metavar="NAME", help="spectrum or mp.")] = None,
    layers: Annotated[str | None, typer.Option(metavar="A-B", help="First and last layer, or one.")] = None,
    least: Annotated[float, typer.Option("--min", metavar="X", help="Least score.")] = 0.0,
    most: Annotated[float, typer.Option("--max", metavar="X", help="Largest score.")] = math.inf,
    noise_free: Annotated[bool, typer.Option("--noise-free", help="Only modules without noise.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="Most lines; 0 is all.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Find modules in all scans of a library, the best scores first.

    \b
    Example: spectrum-fast scans find library --type v_proj --noise-free
    """
    from spectrum_fast.choose.library import LibraryIndex
    from spectrum_fast.errors import UsageError
    from spectrum_fast.use.report.library_table import found_table

    if layers is not None and not re.fullmatch(r"\d{1,6}(-\d{1,6})?", layers):
        raise UsageError(f"--layers: expected A-B or one number, found {layers!r}")
    if not library.is_dir():
        raise UsageError(f"{library}: expected the folder of a library, found no folder; make one with `fleet`")
    ends = None if layers is None else [int(end) for end in layers.split("-")]
    with LibraryIndex(library) as index:
        problems = index.refresh()
        found = index.find(
            model=model,
            type=type_,
            criterion=criterion,
            layers=None if ends is None else (ends[0], ends[-1]),
            scores=(least, most) if least > 0 or most < math.inf else None,
            noise_free=noise_free,
            limit=limit or -1,
        )
        if as_json:
            for module in found:  # the score of a noise-free module is null, as in a scan file
                score = None if math.isinf(module.score) else module.score
                typer.echo(json.dumps(module._asdict() | {"score": score}))
        else:
            show(found_table(found))
    for file, problem in problems.items():
        say(f"failed: {file}: {problem}", style="red")
    if problems:
        raise typer.Exit(1)
