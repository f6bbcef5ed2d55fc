"""What a run trains: the modules of a selection file, or of a scan and a share, or of a scan made now; and its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.scan_view import as_fused_in
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.kept import find_scan
from spectrum_fast.use.training.record import selection_digest

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection
    from spectrum_fast.use.training.arguments import RunArguments

SELECTION_NAME = "selection.json"
SCAN_NAME = "scan.json"


def decide(run: RunArguments, resume: str | None, skeleton: nn.Module, say: Callable[[str], None]) -> Selection:
    """The selection that a run names, or one of its scan, kept in the output folder as the scan is if it is made now.

    Raises:
        UsageError: the run goes on from a checkpoint, and trained something else before.
        SelectionError: nothing can be selected, or the scan is of another model.
        SpectrumFastError: the model cannot be scanned, or a file not be read.
    """
    section, target = run.spectrum, run.output_folder / SELECTION_NAME
    if section.selection is not None:
        selection = load_selection(section.selection)
    else:
        fused = "parts"
        scan = find_scan(
            run.model_name,
            run.output_folder / SCAN_NAME,
            section,
            revision=run.given.get("model_revision", "main"),
            say=say,
        )
        if section.partial == "aggregate":
            scan, fused = as_fused_in(scan, skeleton), "parameter"
        selection = select_with(scan, replace(section, order=section.chosen.order, fused=fused))
    if resume is None or not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        selection.save(target)
    elif selection_digest(before := load_selection(target)) != selection_digest(selection):
        raise UsageError(
            f"{run.source}: resume_from_checkpoint: the run so far trained {len(before.names)} modules ({target}), the "
            f"configuration now selects {len(selection.names)} others; give spectrum.selection: {target}"
        )
    return selection


def load_data(script: Any, mixture: Any, *, evaluate: bool) -> list[Any]:
    """Training and evaluation data: a local file or folder, a hub id, or TRL's mixture of them.

    The second is None if the run does not evaluate.

    Raises:
        UsageError: a split is missing, or there is no row to train on.
        Exception: what ``datasets`` says of what it cannot load.
    """
    from datasets import load_dataset
    from trl import get_dataset  # pyright: ignore[reportPrivateImportUsage]

    for part in mixture.datasets or ():
        part.path, part.data_files = _split_file(part.path, part.data_files)
    if mixture.datasets:
        splits: Any = get_dataset(mixture)
    else:
        path, file = _split_file(script.dataset_name)
        name = script.dataset_config if file is None else None
        splits = load_dataset(path, name, data_files=file, streaming=script.dataset_streaming)
    found = [None, None]
    for place, key in enumerate(("dataset_train_split", "dataset_test_split")[: 1 + evaluate]):
        split = getattr(script, key)
        if split not in splits or getattr(splits[split], "num_rows", 1) == 0:
            raise UsageError(
                f"{key} {split!r}: expected a split with rows in it, found {', '.join(map(str, splits))}; a folder "
                "with train.jsonl and test.jsonl has both, or give datasets and test_split_size"
            )
        found[place] = splits[split]
    return found


def _split_file(name: str, files: Any = None) -> tuple[str, Any]:
    """A local file as ``datasets`` wants it, folder and name; anything else as it is."""
    path = Path(name)
    return (str(path.resolve().parent), path.name) if files is None and path.is_file() else (name, files)
