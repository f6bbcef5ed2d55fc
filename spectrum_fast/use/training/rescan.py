"""Scan the live weights while they are trained: how scores and ranks move, and a new selection between phases.

``trainer = SFTTrainer(..., callbacks=[sf.RescanCallback(every_steps=200)])`` scans before the first step and after
every 200, in place. Each scan adds a line to ``rescans.jsonl`` in the output folder and figures to the next log entry.
With ``reselect_every`` the best modules of the newest scan are trained from then on.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.compare import compare_scans
from spectrum_fast.choose.selection.model.scan_view import as_fused_in
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import ScanCriterion
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.run import scan
from spectrum_fast.use.training.callbacks import FiguresInLog
from spectrum_fast.use.training.precision import widen_trained
from spectrum_fast.use.training.trainable import change_trained, require_changeable

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerState, TrainingArguments

    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.choose.selection.selection import Selection

RESCANS_NAME = "rescans.jsonl"


@dataclass(frozen=True, kw_only=True)
class Rescan:
    """What one scan of the live weights shows. Correlations are Spearman's, None where undefined.

    Attributes:
        step: optimizer steps made before it.
        seconds: that it took.
        spearman_to_first: of the scores with those of the first scan.
        spearman_to_last: with those of the scan before.
        spearman_by_type: with the first scan, in each module type.
        median_change: median over the modules of ``|a - b| / max(a, b)`` against the first scan.
        max_change: the largest.
        churn_to_first: share of the first scan's selection that this scan would not select, in [0, 1].
        churn_to_last: the same against the scan before.
        added: modules that are trained from now on and were not before; empty without reselection.
        dropped: modules that were trained and are not any more.
        failed: tensors that could not be scored.
    """

    step: int
    seconds: float
    spearman_to_first: float | None
    spearman_to_last: float | None
    spearman_by_type: dict[str, float | None]
    median_change: float | None
    max_change: float | None
    churn_to_first: float
    churn_to_last: float
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class RescanCallback(FiguresInLog):
    """Scans the model every ``every_steps`` steps. Nothing of the model changes unless ``reselect_every`` is given.

    Under ZeRO-3 and FSDP2 parameters are gathered one at a time, on all ranks. Reselection is for one process with any
    torch optimizer: it moves parameters in and out of the optimizer's groups, frees the state of those that leave, and
    lets the optimizer make the state of those that come. Where it cannot be right (DeepSpeed and FSDP2 have laid out
    their partitions, DDP its buckets) it is refused before the first step.

    Args:
        every_steps: steps between two scans.
        criterion: rule of the scores.
        reselect_every: steps between two selections, a multiple of ``every_steps``; None never reselects.
        threads: CPU threads of the scan.
        options: of the selection whose churn is reported, and that reselection trains, each as in
            :meth:`spectrum_fast.Scan.select`: ``top_percent``, ``only``, ``always``, ``grouping``...

    Attributes:
        history: one :class:`Rescan` a scan after the first.
        selection: the newest selection, None before training.

    Raises:
        UsageError: an argument is out of range; (when training begins) reselection is not possible in this run.
    """

    def __init__(
        self,
        every_steps: int,
        *,
        criterion: ScanCriterion = "spectrum",
        reselect_every: int | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        if every_steps < 1:
            raise UsageError(f"every_steps: expected a whole number of 1 or more, found {every_steps}")
        if reselect_every is not None and (reselect_every < 1 or reselect_every % every_steps):
            raise UsageError(
                f"reselect_every: expected a multiple of every_steps ({every_steps}), found {reselect_every}"
            )
        self.every_steps, self.reselect_every = every_steps, reselect_every
        self.scanning = ScanOptions(criterion=criterion, threads=threads)
        self.options = SelectOptions(**{"allow_incomplete": True, **options})
        self.history: list[Rescan] = []
        self.selection: Selection | None = None
        self._seen: list[tuple[Scan, Selection]] = []
        self._pending: dict[str, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Check that reselection is possible, and make the scan that others are compared with."""
        if self.reselect_every is not None:
            require_changeable(parts["optimizer"], processes=args.world_size)
        scan, self.selection = self._scan(parts["model"])
        self._seen = [(scan, self.selection)] * 2  # the first, and the one before the next

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Scan when it is time, and reselect when it is time for that."""
        if state.global_step % self.every_steps:
            return
        model, started = parts["model"], time.perf_counter()
        scan, selection = self._scan(model)
        seconds = time.perf_counter() - started
        added, dropped = (), ()
        reselects = self.reselect_every is not None and state.global_step % self.reselect_every == 0
        if reselects:
            self.selection = selection
            added, dropped = change_trained(selection, model, parts["optimizer"])
            widen_trained(model, args)
        first, last = (compare_scans(before, scan) for before, _ in self._seen)
        churn_to_first, churn_to_last = (_churn(before, selection) for _, before in self._seen)
        found = Rescan(
            step=state.global_step,
            seconds=seconds,
            spearman_to_first=first.spearman,
            spearman_to_last=last.spearman,
            spearman_by_type=dict(first.spearman_by_type),
            median_change=first.median_relative,
            max_change=first.max_relative,
            churn_to_first=churn_to_first,
            churn_to_last=churn_to_last,
            added=added,
            dropped=dropped,
            failed=tuple(failure.name for failure in scan.failures),
        )
        self._seen[1] = scan, selection
        self.history.append(found)
        self._pending = _log_entries(found)
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / RESCANS_NAME).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found), allow_nan=False) + "\n")
            if reselects:
                selection.save(folder / f"selection-step-{found.step}.json")

    def figures(self) -> dict[str, Any]:
        """Those of the newest scan, once."""
        pending, self._pending = self._pending, {}
        return pending

    def _scan(self, model: nn.Module) -> tuple[Scan, Selection]:
        made = scan(model, criterion=self.scanning.criterion, threads=self.scanning.threads)
        return made, select_with(as_fused_in(made, model), self.options)


def _churn(before: Selection, now: Selection) -> float:
    gone = {module.name for module in before.modules} - {module.name for module in now.modules}
    return len(gone) / max(1, len(before.modules))


def _log_entries(found: Rescan) -> dict[str, Any]:
    change = found.median_change
    entries = {
        "rescan_seconds": round(found.seconds, 3),
        "rescan_churn": round(found.churn_to_first, 4),
        "rescan_spearman": found.spearman_to_first and round(found.spearman_to_first, 6),
        "rescan_median_change": None if change is None else float(f"{change:.4g}"),
        "reselect_added": len(found.added) or None,
        "reselect_dropped": len(found.dropped) or None,
    }
    return {key: value for key, value in entries.items() if value is not None}
