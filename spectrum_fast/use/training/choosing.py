"""What a run trains: the modules of a selection file, or of a scan and a share, or of a scan made now; and its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.scan_view import as_fused_in
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import load_selection
from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.kept import find_scan
from spectrum_fast.use.training.record import selection_digest

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.choose.selection.selection import Selection
    from spectrum_fast.use.training.arguments import RunArguments

SELECTION_NAME = "selection.json"
SCAN_NAME = "scan.json"


def choose_modules(run: RunArguments, model: nn.Module, kept: Path, say: Callable[[str], None]) -> Selection:
    """The selection that a run names, or one of its scan (:func:`spectrum_fast.scanning.kept.find_scan`).

    Args:
        run: its arguments.
        model: the running model, its skeleton is enough: it says what is fused.
        kept: where a scan is kept that is made.
        say: tells people.

    Raises:
        SelectionError: nothing can be selected, or the scan is of another model.
        SpectrumFastError: the model cannot be scanned, or a file not be read.
    """
    section = run.spectrum
    if section.selection is not None:
        return load_selection(section.selection)
    scan, fused = scan_for(run, kept, say), "parts"
    if section.partial == "aggregate":
        scan, fused = as_fused_in(scan, model), "parameter"
    return select_for(run, scan, fused=fused)


def select_for(run: RunArguments, scan: Scan, **more: Any) -> Selection:
    """Select from a scan as the section says, and otherwise where ``more`` does."""
    options = {field.name: getattr(run.spectrum, field.name) for field in fields(SelectOptions)}
    return select_with(scan, SelectOptions(**{**options, "order": run.spectrum.chosen.order, **more}))


def scan_for(run: RunArguments, kept: Path, say: Callable[[str], None]) -> Scan:
    """The scan that a run chooses from."""
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


def decide(run: RunArguments, resume: str | None, skeleton: nn.Module, say: Callable[[str], None]) -> Selection:
    """Choose, with a scan if need be, and keep the selection in the output folder.

    Raises:
        UsageError: the run goes on from a checkpoint, and trained something else before.
        SpectrumFastError: as :func:`choose_modules`.
    """
    home = run.output_folder
    selection, target = choose_modules(run, skeleton, home / SCAN_NAME, say), home / SELECTION_NAME
    if resume is None or not target.is_file():
        home.mkdir(parents=True, exist_ok=True)
        selection.save(target)
    elif selection_digest(before := load_selection(target)) != selection_digest(selection):
        raise UsageError(
            f"{run.source}: resume_from_checkpoint: the run so far trained {len(before.names)} modules ({target}), the "
            f"configuration now selects {len(selection.names)} others; give spectrum.selection: {target}"
        )
    return selection


def load_data(script: Any, mixture: Any, *, evaluate: bool) -> tuple[Any, Any]:
    """Training and evaluation data: a local file or folder, a hub id, or TRL's mixture of them.

    Args:
        script: TRL's ``ScriptArguments``.
        mixture: TRL's ``DatasetMixtureConfig``.
        evaluate: whether the run evaluates; the second part is None if not.

    Raises:
        UsageError: nothing is found, a split is missing, or there is no row to train on.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from trl import get_dataset  # pyright: ignore[reportPrivateImportUsage]

    try:
        for part in mixture.datasets or ():
            if part.data_files is None:
                part.path, part.data_files = _split_file(part.path)
        if mixture.datasets:
            splits: Any = get_dataset(mixture)
        else:
            path, file = _split_file(script.dataset_name)
            name = script.dataset_config if file is None else None
            splits = load_dataset(path, name, data_files=file, streaming=script.dataset_streaming)
    except (DatasetsError, OSError, ValueError, StopIteration) as cause:
        why = cause if str(cause) else "holds no rows"
        raise UsageError(f"{script.dataset_name or 'datasets'}: cannot be loaded: {why}") from cause
    wanted = {"dataset_train_split": script.dataset_train_split}
    if evaluate:
        wanted["dataset_test_split"] = script.dataset_test_split
    for key, split in wanted.items():
        if split not in splits:
            raise UsageError(
                f"{key} {split!r}: expected one of the splits of the data, found {', '.join(map(str, splits))}; a "
                "folder with train.jsonl and test.jsonl has both, or give datasets and test_split_size"
            )
        if getattr(splits[split], "num_rows", 1) == 0:
            raise UsageError(f"{key} {split!r}: holds no rows")
    return splits[script.dataset_train_split], splits[script.dataset_test_split] if evaluate else None


def _split_file(name: str) -> tuple[str, str | None]:
    """A local file as ``datasets`` wants it, folder and name; a folder or a hub id as it is."""
    path = Path(name)
    return (str(path.resolve().parent), path.name) if path.is_file() else (name, None)
