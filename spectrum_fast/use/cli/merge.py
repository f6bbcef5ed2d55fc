"""``spectrum-fast merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PARTS...", help="Files of all parts, in any order.")],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Scan file to write (JSON).")],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Where the checkpoint is; default is where the parts found it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table.")] = False,
) -> None:
    """Make one scan of its parts (scan --part); missing ones are named.

    \b
    Example: spectrum-fast merge scan.json.part-* --out scan.json
    """
    from spectrum_fast.scanning.merge import merge_parts
    from spectrum_fast.use.cli.interrupts import terminable
    from spectrum_fast.use.cli.output import require_writable, save_scan
    from spectrum_fast.use.cli.scan_end import end_scan

    require_writable(out_file, "--out")
    with terminable():
        result, options = merge_parts(parts, model=model)
        end_scan(result, lambda scan: save_scan(scan, out_file), options, quiet=quiet, words=not quiet)
    if result.failures:
        raise typer.Exit(1)
