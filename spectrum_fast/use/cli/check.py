"""``spectrum-fast check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.errors import SelectionError
from spectrum_fast.files import read_text
from spectrum_fast.use.cli.consoles import hand_out, say, show


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
    fix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it in the names of the model, entries that match nothing mended."),
    ] = None,
) -> None:
    """Show what axolotl, line parsers, PEFT and we would train of a selection.

    Exit code 1 if an entry matches nothing or a reader trains something else than
    the selection says.

    \b
    Example: spectrum-fast check unfrozen.yaml MODEL
    """
    from spectrum_fast.choose.selection.export.check import READERS, check_selection
    from spectrum_fast.choose.selection.export.mend import mend_selection
    from spectrum_fast.choose.selection.model.skeleton import read_skeleton
    from spectrum_fast.use.report.check_table import check_table

    if fix is not None:
        mended = mend_selection(read_text(selection, error=SelectionError), str(selection), read_skeleton(model, names))
        hand_out(mended.text, fix, SelectionError)
        for entry, name in mended.replaced.items():
            say(f"{entry} -> {name}")
        for entry in mended.dropped:
            say(f"{entry}: the model has no parameter of its own for it; left out")
        return
    result = check_selection(selection, model, readers=reader or READERS, names=names)
    show(check_table(result))
    if not result.agree:
        raise typer.Exit(1)
