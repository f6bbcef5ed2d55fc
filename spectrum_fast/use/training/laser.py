"""The method ``laser``: no training, but a checkpoint at low rank in the place where a trained one would be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats import load_selection
from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.naming import role
from spectrum_fast.use.laser import choose_targets, write_laser
from spectrum_fast.use.training.choosing import DEFAULT_PERCENT, SCAN_NAME
from spectrum_fast.use.training.record import RUN_NAME, versions, write_run

if TYPE_CHECKING:
    from spectrum_fast.use.training.config import TrainConfig


def run_laser(config: TrainConfig, say: Callable[[str], None]) -> Path:
    """Write the model with the selected matrices at their Marchenko-Pastur rank to the output folder.

    One process does it; the others of a distributed run return at once.

    Args:
        config: the run; of its section, what chooses modules is used. A scan must be by the criterion ``mp``.
        say: writes a line for people.

    Returns:
        the path of ``run.json``, which is written last.

    Raises:
        UsageError: the output folder is there already, or the scan does not know the noise edge.
        CheckpointError: the model cannot be read, or the folder cannot be written.
        SelectionError: nothing is selected.
    """
    target = config.output_folder / RUN_NAME
    if os.environ.get("RANK", "0") != "0":
        return target
    started = time.perf_counter()
    section, checkpoint = config.spectrum, open_checkpoint(config.model_name)
    if section.scan is not None:
        scan = load_scan(section.scan)
    else:
        from spectrum_fast.scanning.run import scan as make_scan

        say(f"scanning {config.model_name} (criterion mp)")
        scan = make_scan(config.model_name, criterion="mp")
    if section.selection is not None:
        selection = load_selection(section.selection)
    else:
        selection = scan.select(
            DEFAULT_PERCENT if section.top_percent is None else section.top_percent,
            grouping=section.grouping,
            rounding=section.rounding,
            include=section.include or (),
            exclude=section.exclude or (),
            always="none",
            allow_incomplete=section.allow_incomplete,
            fused="parts",
        )
    names = [module.name for module in selection.modules if role(module.name) == "other"]
    targets, whole = choose_targets(checkpoint, scan, names)
    records = write_laser(checkpoint, targets, config.output_folder, facts={"criterion": scan.criterion})
    scan.save(config.output_folder / SCAN_NAME)
    say(f"{len(records)} matrices at low rank, {len(whole)} chosen ones have no noise to lose")
    run = {
        "schema": 1,
        "kind": "run",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "method": config.method.name,
        "model": config.model_name,
        "config": dict(config.document),
        "trainable": None,
        "steps": 0,
        "seconds": round(time.perf_counter() - started, 3),
        "matrices": len(records),
        "versions": versions(),
    }
    write_run(run, target)
    say(f"wrote {config.output_folder}: model, {RUN_NAME}")
    return target
