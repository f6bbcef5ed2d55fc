"""The loop of a scan: read a weight, score it, hand over what it came to, forget it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, StreamStatistics, WeightStream, stream_weights
from spectrum_fast.scanning.journal import Settings
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.results import ModuleResult, failure_of
from spectrum_fast.scanning.scorers import Scorer


class Work(Protocol):
    """Where a process gets its work from and hands its results to."""

    def take(self) -> Iterator[WeightPlan]:
        """Weights to score, each asked for shortly before it is read; ends when there are none at the moment."""
        ...

    def deliver(self, result: ModuleResult) -> None:
        """Hand over what a weight came to."""
        ...

    def more(self) -> bool:
        """After ``take`` has ended and all is delivered: wait; whether there is more to take after all."""
        ...


class OwnWork:
    """All that is left of a plan, in file order, for the only process of a scan."""

    def __init__(self, weights: Sequence[WeightPlan], ledger: Ledger, settings: Settings) -> None:
        self._weights = weights
        self._ledger = ledger
        self._settings = settings

    def take(self) -> Iterator[WeightPlan]:
        """Everything that is not finished."""
        return iter([weight for weight in self._weights if weight.name not in self._ledger])

    def deliver(self, result: ModuleResult) -> None:
        """Enter it in the ledger."""
        self._ledger.record(result, self._settings)

    def more(self) -> bool:
        """Nobody else makes work."""
        return False


def do_work(work: Work, scorer: Scorer, options: StreamOptions) -> StreamStatistics:
    """Score all that there is to take, until there is no more; returns what reading it took."""
    total = StreamStatistics()
    while True:
        with stream_weights(work.take(), options) as stream:
            for result in _score_all(stream, scorer):
                work.deliver(result)
        total.add(stream.statistics)
        if not work.more():
            return total


def _score_all(stream: WeightStream, scorer: Scorer) -> Iterator[ModuleResult]:
    while True:
        waiting_since = time.perf_counter()
        try:
            loaded = next(stream, None)
        except Exception as error:
            if stream.failed is None:
                raise
            yield ModuleResult(failure_of(stream.failed, error))
            continue
        if loaded is None:
            break
        yield from scorer.add(loaded, time.perf_counter() - waiting_since)
    yield from scorer.finish()
