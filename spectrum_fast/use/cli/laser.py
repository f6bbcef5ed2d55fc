"""``spectrum-fast laser``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.choose.selection.ranking import Order
from spectrum_fast.errors import UsageError
from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.options import Exclude, Include


def laser(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Checkpoint folder, .safetensors file, or hub id.")],
    scan: Annotated[Path, typer.Option(metavar="FILE", help="Scan of the model.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    selection: Annotated[Path | None, typer.Option(metavar="FILE", help="The modules, already selected.")] = None,
    top_percent: Annotated[float, typer.Option(metavar="P", help="Share of each module type.")] = 25.0,
    order: Annotated[Order, typer.Option(metavar="NAME", help="top, bottom or random.")] = "top",
    include: Include = None,
    exclude: Exclude = None,
    rank: Annotated[int | None, typer.Option(metavar="R", help="This rank instead of the noise edge's.")] = None,
    fraction: Annotated[float | None, typer.Option(metavar="F", help="This share of the shorter side.")] = None,
    ranks: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="edge, a share of the energy (0.9), or PEFT's file of `select --ranks`."),
    ] = None,
) -> None:
    """Replace chosen matrices by low-rank ones, into a new checkpoint.

    \b
    Example: spectrum-fast laser MODEL --scan mp.json --top-percent 25 --out DIR
    """
    from spectrum_fast.choose.selection.export.low_ranks import module_ranks, read_rank_pattern
    from spectrum_fast.choose.selection.options import RankOptions
    from spectrum_fast.choose.selection.scan_result import load_scan
    from spectrum_fast.choose.selection.selection import load_selection
    from spectrum_fast.read.checkpoint import open_checkpoint
    from spectrum_fast.read.checkpoint.naming import role
    from spectrum_fast.scanning.content import require_scan_of
    from spectrum_fast.use.cli.interrupts import terminable
    from spectrum_fast.use.laser import LaserRecord, choose_targets, write_laser

    checkpoint, scores = open_checkpoint(model), load_scan(scan)
    require_scan_of(scores, checkpoint, scan)
    told = read_rank_pattern(ranks) if ranks is not None and Path(ranks).is_file() else None
    kept = told if ranks is None or told is not None else module_ranks(scores, RankOptions(ranks=ranks))
    if told is not None:
        if selection or include or exclude:
            raise UsageError(f"{ranks} has fixed the modules, so --selection, --include and --exclude have no effect")
        chosen = scores.select(100, include=list(told), always="none", fused="parts")
    elif selection is None:
        chosen = scores.select(
            top_percent,
            include=include or (),
            exclude=exclude or (),
            always="none",
            fused="parts",
            order=order,
        )
    elif include or exclude:
        raise UsageError("--selection has fixed the modules, so --include and --exclude have no effect")
    else:
        chosen = load_selection(selection)
    names = [module.name for module in chosen.modules if role(module.name) == "other"]
    targets, whole = choose_targets(checkpoint, scores, names, rank=rank, fraction=fraction, ranks=kept)

    def report(record: LaserRecord) -> None:
        say(f"{record.module}: rank {record.rank} of {record.full_rank}, relative error {record.relative_error:.3g}")

    facts = {"criterion": scores.criterion, "top_percent": chosen.top_percent, "order": order}
    with terminable():
        records = write_laser(checkpoint, targets, out, facts=facts, progress=report)
    if whole:
        say(f"{len(whole)} chosen modules keep all singular values and stay as they are")
    saved = 1 - sum(record.numbers for record in records) / sum(record.whole for record in records)
    say(f"wrote {out}: {len(records)} matrices at low rank; as factors they would take {100 * saved:.1f} % less")
