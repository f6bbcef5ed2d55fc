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

from spectrum_fast.choose.selection.compare import SelectionOverlap, compare_scans
from spectrum_fast.choose.selection.ranking import Grouping, check_percent
from spectrum_fast.choose.selection.runtime_view import as_fused_in
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import ScanCriterion
from spectrum_fast.use.training.callbacks import FiguresInLog
from spectrum_fast.use.training.precision import widen_trained
from spectrum_fast.use.training.reselect import OptimizerChange, change_trained, require_changeable

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
        top_percent: share of each type whose churn is reported, and that reselection trains.
        criterion: rule of the scores.
        always: as in :meth:`spectrum_fast.Scan.select`.
        grouping: as in :meth:`spectrum_fast.Scan.select`.
        reselect_every: steps between two selections, a multiple of ``every_steps``; None never reselects.
        threads: CPU threads of the scan.

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
        top_percent: float = 25,
        criterion: ScanCriterion = "spectrum",
        always: str = "default",
        grouping: Grouping = "type",
        reselect_every: int | None = None,
        threads: int | None = None,
    ) -> None:
        if every_steps < 1:
            raise UsageError(f"every_steps: expected a whole number of 1 or more, found {every_steps}")
        if reselect_every is not None and (reselect_every < 1 or reselect_every % every_steps):
            raise UsageError(
                f"reselect_every: expected a multiple of every_steps ({every_steps}), found {reselect_every}"
            )
        self.every_steps = every_steps
        self.top_percent = check_percent(top_percent)
        self.criterion: ScanCriterion = criterion
        self.always = always
        self.grouping: Grouping = grouping
        self.reselect_every = reselect_every
        self.threads = threads
        self.history: list[Rescan] = []
        self.selection: Selection | None = None
        self._first: Scan | None = None
        self._last: Scan | None = None
        self._pending: dict[str, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Check that reselection is possible, and make the scan that others are compared with."""
        if self.reselect_every is not None:
            require_changeable(parts["optimizer"], processes=args.world_size)
        self._first = self._last = self._scan(parts["model"])
        self.selection = self._select(self._first, parts["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **parts: Any) -> None:
        """Scan when it is time, and reselect when it is time for that."""
        if state.global_step % self.every_steps:
            return
        model = parts["model"]
        started = time.perf_counter()
        scan = self._scan(model)
        seconds = time.perf_counter() - started
        change = None
        if self.reselect_every is not None and state.global_step % self.reselect_every == 0:
            self.selection = self._select(scan, model)
            change = change_trained(self.selection, model, parts["optimizer"])
            widen_trained(model, args)
        found = self._compare(scan, state.global_step, seconds, change or OptimizerChange())
        self._last = scan
        self.history.append(found)
        self._pending = _log_entries(found)
        if state.is_world_process_zero:
            self._write(found, Path(str(args.output_dir)), changed=change is not None)

    def figures(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Those of the newest scan, once."""
        pending, self._pending = self._pending, {}
        return pending

    def _scan(self, model: nn.Module) -> Scan:
        from spectrum_fast.scanning.run import scan

        return scan(model, criterion=self.criterion, threads=self.threads)

    def _select(self, scan: Scan, model: nn.Module) -> Selection:
        return as_fused_in(scan, model).select(
            self.top_percent, always=self.always, grouping=self.grouping, allow_incomplete=True
        )

    def _compare(self, scan: Scan, step: int, seconds: float, change: OptimizerChange) -> Rescan:
        assert self._first is not None and self._last is not None  # noqa: S101, PT018 - training has begun
        first, last = (compare_scans(before, scan, self.top_percent) for before in (self._first, self._last))
        return Rescan(
            step=step,
            seconds=seconds,
            spearman_to_first=first.spearman,
            spearman_to_last=last.spearman,
            spearman_by_type=dict(first.spearman_by_type),
            median_change=first.median_relative,
            max_change=first.max_relative,
            churn_to_first=_churn(first.overlap),
            churn_to_last=_churn(last.overlap),
            added=change.added,
            dropped=change.dropped,
            failed=tuple(failure.name for failure in scan.failures),
        )

    def _write(self, found: Rescan, folder: Path, *, changed: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / RESCANS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found), allow_nan=False) + "\n")
        if changed and self.selection is not None:
            self.selection.save(folder / f"selection-step-{found.step}.json")


def _churn(overlap: SelectionOverlap) -> float:
    return 1 - overlap.n_both / overlap.n_a if overlap.n_a else 0.0


def _log_entries(found: Rescan) -> dict[str, Any]:
    entries: dict[str, Any] = {
        "rescan_seconds": round(found.seconds, 3),
        "rescan_churn": round(found.churn_to_first, 4),
    }
    if found.spearman_to_first is not None:
        entries["rescan_spearman"] = round(found.spearman_to_first, 6)
    if found.median_change is not None:
        entries["rescan_median_change"] = float(f"{found.median_change:.4g}")
    if found.added or found.dropped:
        entries |= {"reselect_added": len(found.added), "reselect_dropped": len(found.dropped)}
    return entries
