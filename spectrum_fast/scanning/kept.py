"""The scan that a training run chooses from: the one that is named, or one that is kept beside the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.errors import JournalError, UsageError
from spectrum_fast.measure.scoring.criteria import ScanCriterion
from spectrum_fast.options import Option
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.scanning.content import is_scan_of, require_scan_of


@dataclass(frozen=True, kw_only=True)
class ScanChoice(SelectOptions):
    """The options of a selection, and which scan it is made from.

    Raises:
        UsageError: a value is not what it should be.
    """

    scan: Annotated[str | None, Option("A scan file; without it the model is scanned.")] = None


def find_scan(source: str, kept: Path, choice: ScanChoice, *, revision: str, say: Callable[[str], None]) -> Scan:
    """The scan that is named, or the one that is kept if it is of these weights, or a new one, kept there.

    Args:
        source: the model, as for a scan.
        kept: where a scan that is made is kept, its journal beside it.
        choice: names a scan file, or the criterion of a new one (``spectrum`` if none, or if one that follows from any)
            and the share whose cuts it decides.
        revision: of a model of the hub, that is trained.
        say: tells people.

    Raises:
        SelectionError: the scan that is named is of another model.
        UsageError: it was made by another criterion, or the revision cannot be scanned here.
        CheckpointError: the model cannot be scanned.
    """
    from spectrum_fast.scanning.run import scan as make_scan

    checkpoint = open_checkpoint(source)
    wanted = next((name for name in get_args(ScanCriterion) if name == choice.criterion), None)
    if choice.scan is not None:
        scan = load_scan(choice.scan)
        if wanted not in (None, scan.criterion):
            raise UsageError(
                f"spectrum.criterion {wanted}: the scan {choice.scan} was made by {scan.criterion}; scan with "
                f"--criterion {wanted}, or drop the key"
            )
        require_scan_of(scan, checkpoint, choice.scan)
        return scan
    made_by: ScanCriterion = wanted or "spectrum"
    if kept.is_file():
        scan = load_scan(kept)
        if scan.criterion == made_by and is_scan_of(scan, checkpoint):
            return scan
        say(f"{kept} is of other weights, or was made otherwise: it is replaced")
    if revision != "main" and not Path(source).exists():
        raise UsageError(
            f"{source}: only the main revision is scanned by the run itself, found {revision}; scan the folder of this "
            "revision first and name that scan (spectrum.scan)"
        )
    say(f"scanning {source} (criterion {made_by}); the scan is kept as {kept}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        return make_scan(source, criterion=made_by, top_percent=choice.top_percent, out=kept)
    except JournalError:  # what an interrupted scan of other weights left
        return make_scan(source, criterion=made_by, top_percent=choice.top_percent, out=kept, restart=True)
