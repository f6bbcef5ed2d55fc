"""The work of one rank: chunks from the store, results to rank 0, signs of life meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from spectrum_fast.errors import RankError
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning.chunks import indices_of
from spectrum_fast.scanning.exchange import Exchange
from spectrum_fast.scanning.journal import Settings
from spectrum_fast.scanning.messages import encode_result
from spectrum_fast.scanning.results import ModuleResult

BEAT_SECONDS = 1.0
"""Time between two signs of life."""
_IDLE_SECONDS = 0.1
"""Time between two looks for more work."""


class Heart:
    """Gives signs of life from a thread of its own while the context is open, however long a matrix takes.

    On leaving tells rank 0 that this rank leaves, so that nobody waits for it.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange.clone()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="spectrum-fast-heart", daemon=True)

    def __enter__(self) -> Heart:
        self._exchange.beat(0)
        self._exchange.tell({"here": socket.gethostname()})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        try:
            self._exchange.tell({"left": True})
        except RankError:
            if error is None:
                raise

    def _beat(self) -> None:
        count = 0
        while not self._stopping.wait(BEAT_SECONDS):
            count += 1
            try:
                self._exchange.beat(count)
            except RankError:
                return  # the main thread will notice, and say so


class RankWork:
    """Takes chunks while there are any, and waits for the end of the scan in case a rank dies and leaves some.

    Args:
        exchange: the main thread's connection.
        weights: of the plan, the same in all ranks.
        scan: digest of the scan.
        settings: under which this rank scores.
        check: called now and then; raises if rank 0's other half has failed.
    """

    def __init__(
        self,
        exchange: Exchange,
        weights: Sequence[WeightPlan],
        scan: str,
        settings: Settings,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._exchange, self._weights, self._scan, self._settings = exchange, weights, scan, settings
        self._check = check
        self._open: dict[int, set[str]] = {}  # chunk -> its weights that are not delivered
        self._lock = threading.Lock()  # the reading side may ask for work from a thread of its own

    def take(self) -> Iterator[WeightPlan]:
        """Weights of one chunk after the other.

        However far the reading side looks ahead, no more than one chunk is taken before the one at work is delivered,
        and none when few are left: work that waits here is work that another rank cannot do.
        """
        while True:
            with self._lock:
                few = self._exchange.offered() < 2 * self._exchange.rank.count
                chunk = self._exchange.take() if len(self._open) < (1 if few else 2) else None
                if chunk is None:
                    return
                weights = [self._weights[index] for index in indices_of(chunk[1])]
                self._open[chunk[0]] = {weight.name for weight in weights}
            yield from weights

    def deliver(self, result: ModuleResult) -> None:
        """Send it to rank 0.

        Raises:
            RankError: rank 0 is gone, or has stopped the scan.
        """
        with self._lock:
            self._exchange.tell(encode_result(result, self._scan, self._settings))
            for names in self._open.values():
                names.discard(result.record.name)
            self._open = {chunk: names for chunk, names in self._open.items() if names}
            self._raise_if_stopped()

    def more(self) -> bool:
        """Wait until the scan is over, or there is work after all."""
        while True:
            with self._lock:
                if self._raise_if_stopped():
                    return False
                if self._exchange.offered():
                    return True
            time.sleep(_IDLE_SECONDS)

    def _raise_if_stopped(self) -> bool:
        """Whether all is done."""
        self._check()
        problem = self._exchange.finished()
        if problem:
            self._check()
            raise RankError(f"rank 0 stopped the scan: {problem}")
        return problem is not None
