"""``spectrum-fast pissa``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.options import Exclude, Include
from spectrum_fast.words import count_of


def pissa(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Checkpoint folder, .safetensors file, or hub id.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make: the rest, and the adapter in pissa_init.")],
    rank: Annotated[int, typer.Option(metavar="R", min=1, help="Of every adapter.")] = 16,
    ranks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only the targets of this file, at its ranks: `select --ranks`.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Split every matrix into a low-rank adapter and the rest, by PiSSA.

    \b
    Example: spectrum-fast pissa MODEL --rank 16 --out DIR
    """
    from spectrum_fast.choose.selection.export.low_ranks import read_rank_pattern
    from spectrum_fast.choose.selection.model.skeleton import read_skeleton
    from spectrum_fast.read.checkpoint import open_checkpoint
    from spectrum_fast.scanning.plan import plan_scan
    from spectrum_fast.use.cli.interrupts import terminable
    from spectrum_fast.use.laser import pissa_targets, write_laser

    checkpoint = open_checkpoint(model)
    told = None if ranks is None else read_rank_pattern(ranks)
    skeleton = read_skeleton(model, "runtime")
    plan = plan_scan(checkpoint, include=include or (), exclude=exclude or ())
    targets, names = pissa_targets(plan.weights, skeleton.module, told or rank)
    with terminable():
        records = write_laser(checkpoint, targets, out, adapter=names)
    numbers = sum(record.numbers for record in records)
    say(
        f"wrote {out} and {out / 'pissa_init'}: {count_of(len(records), 'adapter')} of {numbers:,} numbers; to train: "
        f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained('{out}'), '{out / 'pissa_init'}', "
        "is_trainable=True)"
    )
