"""``spectrum-fast check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import show

HELP = """Show what axolotl, line parsers, PEFT and we would train of a selection.

Exit code 1 if a reader trains something else than the selection says.

\b
Example: spectrum-fast check unfrozen.yaml MODEL"""


def check(
    selection: Annotated[Path, typer.Argument(metavar="SELECTION", help="Selection file, in any format of `select`.")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint folder, .safetensors file, or hub id org/name.")
    ],
    reader: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="spectrum-fast, axolotl, line-parser, readme or peft; repeatable."),
    ] = None,
    names: Annotated[
        str,
        typer.Option(metavar="NAME", help="Parameter names of: runtime (transformers), checkpoint, or auto."),
    ] = "auto",
) -> None:
    """Check and print."""
    from spectrum_fast.choose.selection.check import READERS, check_selection
    from spectrum_fast.use.report.check_table import check_table

    result = check_selection(selection, model, readers=reader or READERS, names=names)
    show(check_table(result))
    if not result.agree:
        raise typer.Exit(1)
