"""What a scan has found so far: in memory, in its journal, and told to whoever follows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.scanning.chunks import work_of
from spectrum_fast.scanning.journal import Findings, Journal, Settings
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.step import ScanProgress


class Ledger(Findings):
    """Takes finished modules, and knows which are left.

    Args:
        plan: all there is to do.
        journal: opened and begun, or None to keep no journal; what it holds already counts as done.
        report: called once at the beginning and after every module, if anybody listens.
        started: when the scan began, by ``time.perf_counter``.

    Attributes:
        plan: as given.
        processes: how many processes are at work; for the report.
    """

    def __init__(
        self, plan: ScanPlan, journal: Journal | None, report: Callable[[ScanProgress], None] | None, started: float
    ) -> None:
        super().__init__()
        self.plan = plan
        self.processes = 1
        self._plans = {weight.name: weight for weight in plan.weights}
        self._journal = journal
        self._report = report
        self._started = started
        self._work = {weight.name: work_of(weight) for weight in plan.weights}
        total, work = len(self._plans), sum(self._work.values())
        # As keywords: a new record after every one of thousands of small matrices takes longer than counting it.
        self._step: dict[str, Any] = vars(ScanProgress("", 0, total, 0, plan.total_bytes, 0.0, total_work=work)).copy()
        if journal is not None:
            self.adopt(journal)
        self._tell()

    def adopt(self, journal: Journal) -> None:
        """Count as done what a journal holds of the plan."""
        for name, record in {**journal.problems, **journal.failures, **journal.modules}.items():
            if name in self._plans and name not in self:
                self.keep(record)
        self.settings += [settings for settings in journal.settings if settings not in self.settings]
        step = self._step
        step.update(resumed=step["done"], resumed_bytes=step["done_bytes"], resumed_work=step["done_work"])

    @property
    def step(self) -> ScanProgress:
        """How far the scan is, but for the time."""
        return ScanProgress(**self._step)

    @property
    def complete(self) -> bool:
        """Whether every module is finished."""
        return len(self) == len(self._plans)

    def record(self, result: ModuleResult, settings: Settings) -> None:
        """Take a finished module; one that is finished already changes nothing.

        Raises:
            JournalError: the journal cannot be written.
        """
        record = result.record
        if record.name in self:
            return
        if self._journal is not None:
            self._journal.append(record, settings)
        super().keep(record, settings)
        self._count(record)
        self._step["name"] = record.name
        self._step["read_seconds"] += result.read_seconds
        self._step["wait_seconds"] += result.wait_seconds
        self._step["compute_seconds"] += result.compute_seconds
        self._tell()

    def keep(self, record: ModuleScore | ScanFailure, *settings: Settings) -> None:
        """Take in what is not finished yet, and count it."""
        super().keep(record, *settings)
        self._count(record)

    def run_facts(self) -> Mapping[str, Any]:
        """What passed by in this sitting: its times, which differ from run to run and are not in the scan file."""
        step = self.step
        return {
            "elapsed_seconds": round(time.perf_counter() - self._started, 3),
            "read_seconds": round(step.read_seconds, 3),
            "wait_seconds": round(step.wait_seconds, 3),
            "compute_seconds": round(step.compute_seconds, 3),
            "modules": step.done,
            "resumed_modules": step.resumed,
            "bytes": step.done_bytes,
            "resumed_bytes": step.resumed_bytes,
        }

    def _count(self, record: ModuleScore | ScanFailure) -> None:
        """One step further."""
        self._step["done"] = len(self)
        self._step["done_bytes"] += self._plans[record.name].nbytes
        self._step["done_work"] += self._work[record.name]
        self._step["failed"] = len(self.failures)

    def _tell(self) -> None:
        if self._report is None:
            return
        elapsed = time.perf_counter() - self._started
        self._report(replace(self.step, elapsed_seconds=elapsed, processes=self.processes))
