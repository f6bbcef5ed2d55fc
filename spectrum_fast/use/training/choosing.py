"""The modules that a run trains: a selection file, or a scan and a share, or a scan made now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats import load_selection
from spectrum_fast.choose.selection.records import Selection
from spectrum_fast.choose.selection.runtime_view import as_fused_in
from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.use.training.config import TrainConfig

DEFAULT_PERCENT = 25.0
SCAN_NAME = "scan.json"


def choose_modules(
    config: TrainConfig,
    model: nn.Module,
    main_process_first: Callable[[], AbstractContextManager[None]],
    say: Callable[[str], None],
) -> Selection | None:
    """The selection of a run, or None where the method trains everything.

    Args:
        config: the run.
        model: the live model, which says what it fuses.
        main_process_first: a context that the first process runs through before the others enter it.
        say: tells people.

    Raises:
        UsageError: the scan was made by another criterion, or is one of another kind.
        SelectionError: nothing can be selected.
        CheckpointError: the model cannot be scanned.
    """
    section, order = config.spectrum, config.method.order
    if order is None:
        return None
    if section.selection is not None:
        return load_selection(section.selection)
    with main_process_first():
        scan = _find_scan(config, say)
    if section.partial == "aggregate":
        scan = as_fused_in(scan, model)
    return scan.select(
        DEFAULT_PERCENT if section.top_percent is None else section.top_percent,
        grouping=section.grouping,
        rounding=section.rounding,
        include=section.include or (),
        exclude=section.exclude or (),
        always=section.always,
        allow_incomplete=section.allow_incomplete,
        fused="parameter" if section.partial == "aggregate" else "parts",
        order=order,
        seed=section.seed,
    )


def selection_digest(selection: Selection) -> str:
    """SHA-256 of the names that are trained, whatever their order: equal for equal trainings."""
    names = json.dumps(sorted(selection.names))
    return "sha256:" + hashlib.sha256(names.encode()).hexdigest()


def _find_scan(config: TrainConfig, say: Callable[[str], None]) -> Scan:
    """The scan that is named, or the one in the output folder if it is of this model, or a new one, kept there."""
    section = config.spectrum
    kept = config.output_folder / SCAN_NAME
    if section.scan is not None:
        return _with_criterion(load_scan(section.scan), section.criterion, section.scan)
    criterion = section.criterion or "spectrum"
    if kept.is_file():
        found = load_scan(kept)
        if found.model == config.model_name and found.criterion == criterion:
            return found
    revision = config.model.get("model_revision", "main")
    if revision != "main" and not Path(config.model_name).exists():
        raise UsageError(
            f"model_revision {revision}: only the main revision is scanned by the run itself; scan the folder of this "
            "revision first and give spectrum.scan"
        )
    from spectrum_fast.scanning.run import scan

    say(f"scanning {config.model_name} (criterion {criterion}); the scan is kept as {kept}")
    made = scan(config.model_name, criterion=criterion)
    kept.parent.mkdir(parents=True, exist_ok=True)
    made.save(kept)
    return made


def _with_criterion(scan: Scan, criterion: str | None, path: str) -> Scan:
    if criterion is not None and scan.criterion != criterion:
        raise UsageError(
            f"spectrum.criterion {criterion}: the scan {path} was made by {scan.criterion}; scan with --criterion "
            f"{criterion}, or drop the key"
        )
    return scan
