"""The loop of a scan: read a weight, score it, hand over what it came to, forget it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, StreamStatistics, WeightStream, stream_weights
from spectrum_fast.scanning.results import ModuleResult, failure_of
from spectrum_fast.scanning.scorers import Scorer


def score_weights(
    weights: Iterable[WeightPlan], scorer: Scorer, options: StreamOptions, deliver: Callable[[ModuleResult], None]
) -> StreamStatistics:
    """Read weights in their order, and deliver what each came to; returns what reading them took. Closes the scorer."""
    with closing(scorer), stream_weights(weights, options) as stream:
        for result in _score_all(stream, scorer):
            deliver(result)
    return stream.statistics


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
