"""``spectrum-fast gallery``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.options import SliderStart
from spectrum_fast.use.cli.scans import Place


def gallery(
    library: Place,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write index.html in.")],
    top_percent: SliderStart = 25.0,
) -> None:
    """Write pages over a library of scans: one to search, and a report for each scan.

    \b
    Example: spectrum-fast gallery model_snr_results -o site
    """
    from spectrum_fast.choose.library import open_library
    from spectrum_fast.use.report.html.gallery import write_gallery

    problems = write_gallery(open_library(library), output, top_percent=top_percent)
    for problem in problems.values():
        say(f"left out: {problem}", style="red")
    say(f"wrote {output / 'index.html'}")
    if problems:
        raise typer.Exit(1)
