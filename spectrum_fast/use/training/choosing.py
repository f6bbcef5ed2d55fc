"""The modules that a run trains: a selection file, or a scan and a share, or a scan made now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.runtime_view import as_fused_in
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.kept import find_scan

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.choose.selection.selection import Selection
    from spectrum_fast.use.training.arguments import RunArguments

SELECTION_NAME = "selection.json"
SCAN_NAME = "scan.json"


def choose_modules(run: RunArguments, scan: Scan | None, model: nn.Module | None) -> Selection:
    """The selection of a run that trains one.

    Args:
        run: its arguments.
        scan: of the model; None where a selection is given.
        model: the running model, its skeleton is enough: it says what is fused. None where nothing is trained.

    Raises:
        SelectionError: nothing can be selected.
    """
    section = run.spectrum
    if scan is None:
        return load_selection(section.selection or "")
    options = {field.name: getattr(section, field.name) for field in fields(SelectOptions)}
    options |= {"order": section.chosen.order, "fused": "parts"}
    if model is None:
        options["always"] = "none"
    elif section.partial == "aggregate":
        scan, options["fused"] = as_fused_in(scan, model), "parameter"
    return select_with(scan, SelectOptions(**options))


def decide(run: RunArguments, resume: str | None, skeleton: nn.Module, say: Callable[[str], None]) -> Selection:
    """Scan, with a journal, if need be; choose; keep the selection in the output folder.

    Raises:
        UsageError: the run goes on from a checkpoint, and trained something else before.
        SpectrumFastError: as the two below.
    """
    home = run.output_folder
    scan = scan_for(run, home / SCAN_NAME, say) if run.spectrum.selection is None else None
    selection, target = choose_modules(run, scan, skeleton), home / SELECTION_NAME
    if resume is None or not target.is_file():
        home.mkdir(parents=True, exist_ok=True)
        selection.save(target)
    elif selection_digest(before := load_selection(target)) != selection_digest(selection):
        raise UsageError(
            f"{run.source}: resume_from_checkpoint: the run so far trained {len(before.names)} modules ({target}), the "
            f"configuration now selects {len(selection.names)} others; give spectrum.selection: {target}"
        )
    return selection


def selection_digest(selection: Selection) -> str:
    """SHA-256 of the names that are trained, whatever their order: equal for equal trainings."""
    names = json.dumps(sorted(selection.names))
    return "sha256:" + hashlib.sha256(names.encode()).hexdigest()


def scan_for(run: RunArguments, kept: Path, say: Callable[[str], None]) -> Scan:
    """The scan that a run chooses from; see :func:`spectrum_fast.scanning.kept.find_scan`."""
    section = run.spectrum
    return find_scan(
        run.model_name,
        kept,
        named=section.scan,
        criterion=section.criterion or ("mp" if section.chosen.low_rank and section.scan is None else None),
        revision=run.given.get("model_revision", "main"),
        top_percent=section.top_percent,
        say=say,
    )
