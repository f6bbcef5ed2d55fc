"""What a scan has found so far: in memory, in its journal, and told to whoever follows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.scanning.chunks import work_of
from spectrum_fast.scanning.journal import Journal, Settings
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.step import ScanProgress


class Ledger:
    """Takes finished modules, each once, and knows which are left.

    Args:
        plan: all there is to do.
        journal: opened and begun, or None to keep no journal; what it holds already counts as done.
        report: called once at the beginning and after every module.
        started: when the scan began, by ``time.perf_counter``.

    Attributes:
        plan: as given.
        modules: name -> score.
        failures: name -> failure.
        settings: under which those were found, each once.
        processes: how many processes are at work; for the report.
    """

    def __init__(
        self, plan: ScanPlan, journal: Journal | None, report: Callable[[ScanProgress], None], started: float
    ) -> None:
        self.plan = plan
        self._plans = {weight.name: weight for weight in plan.weights}
        self._journal = journal
        self._report = report
        self._started = started
        self._total_bytes = plan.total_bytes
        self._total_work = sum(map(work_of, plan.weights))
        self.modules: dict[str, ModuleScore] = {}
        self.failures: dict[str, ScanFailure] = {}
        self.settings: list[Settings] = []
        self.processes = 1
        self._read_seconds = self._wait_seconds = self._compute_seconds = 0.0
        self.resumed = 0
        self._resumed_bytes = self._done_bytes = 0
        self._resumed_work = self._done_work = 0.0
        if journal is not None:
            self.adopt(journal)
        self._tell("")

    def adopt(self, journal: Journal) -> None:
        """Count as done what a journal holds of the plan."""
        for name, record in {**journal.problems, **journal.failures, **journal.modules}.items():
            if name in self._plans and name not in self:
                self._keep(record)
                self.resumed += 1
                self._resumed_bytes += self._plans[name].nbytes
                self._resumed_work += work_of(self._plans[name])
        self.settings += [settings for settings in journal.settings if settings not in self.settings]

    def __contains__(self, name: str) -> bool:
        """Whether this module is finished."""
        return name in self.modules or name in self.failures

    @property
    def complete(self) -> bool:
        """Whether every module is finished."""
        return len(self.modules) + len(self.failures) == len(self._plans)

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
        if settings not in self.settings:
            self.settings.append(settings)
        self._keep(record)
        self._read_seconds += result.read_seconds
        self._wait_seconds += result.wait_seconds
        self._compute_seconds += result.compute_seconds
        self._tell(record.name)

    def run_facts(self) -> Mapping[str, Any]:
        """What passed by in this sitting: its times, which differ from run to run and are not in the scan file."""
        return {
            "elapsed_seconds": round(time.perf_counter() - self._started, 3),
            "read_seconds": round(self._read_seconds, 3),
            "wait_seconds": round(self._wait_seconds, 3),
            "compute_seconds": round(self._compute_seconds, 3),
            "modules": len(self.modules) + len(self.failures),
            "resumed_modules": self.resumed,
            "bytes": self._done_bytes,
            "resumed_bytes": self._resumed_bytes,
        }

    def _keep(self, record: ModuleScore | ScanFailure) -> None:
        if isinstance(record, ModuleScore):
            self.modules[record.name] = record
        else:
            self.failures[record.name] = record
        self._done_bytes += self._plans[record.name].nbytes
        self._done_work += work_of(self._plans[record.name])

    def _tell(self, name: str) -> None:
        self._report(
            ScanProgress(
                name=name,
                done=len(self.modules) + len(self.failures),
                total=len(self._plans),
                done_bytes=self._done_bytes,
                total_bytes=self._total_bytes,
                elapsed_seconds=time.perf_counter() - self._started,
                done_work=self._done_work,
                total_work=self._total_work,
                resumed=self.resumed,
                resumed_bytes=self._resumed_bytes,
                resumed_work=self._resumed_work,
                failed=len(self.failures),
                read_seconds=self._read_seconds,
                wait_seconds=self._wait_seconds,
                compute_seconds=self._compute_seconds,
                processes=self.processes,
            )
        )
