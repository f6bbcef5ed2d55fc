"""Rank 0's other half: hands out work, takes in results, and notices who is gone.

A thread beside the one that scores. It alone touches ledger and journal while a scan is shared.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from spectrum_fast.errors import RankError
from spectrum_fast.scanning.chunks import cut_chunks, indices_of, spans_of
from spectrum_fast.scanning.exchange import Exchange
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.messages import decode_result
from spectrum_fast.scanning.plan import ScanPlan

LEASE_SECONDS = 10.0
"""A rank that gives no sign of life for so long is taken for dead, and its work given to others. One that was only
stalled does no harm: what is done twice is entered once."""
JOIN_SECONDS = 30.0
"""How long after its start a scan that is done waits for ranks that never showed up, so that they find its store."""
_POLL_SECONDS = 0.05


class Coordinator:
    """Runs from :meth:`start` to :meth:`stop` or until all is done.

    Args:
        exchange: a connection of its own.
        plan: all there is to do.
        ledger: what is done; used by this thread alone from now on.
        scan: digest of what is scanned and how; results of another scan are not taken.
        say: tells a person what happened to a rank.
        lease_seconds: None for :data:`LEASE_SECONDS`.

    Attributes:
        error: what ended the scan early, or None; to be raised by the main thread.
        seen: ranks that ever reported.
        lost: ranks taken for dead.
    """

    def __init__(
        self,
        exchange: Exchange,
        plan: ScanPlan,
        ledger: Ledger,
        scan: str,
        *,
        say: Callable[[str], None] = lambda _: None,
        lease_seconds: float | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self.seen: set[int] = set()
        self.lost: set[int] = set()
        self._left: set[int] = set()
        self._exchange, self._plan, self._ledger, self._scan = exchange, plan, ledger, scan
        self._say = say
        self._lease_seconds = LEASE_SECONDS if lease_seconds is None else lease_seconds
        self._began = time.monotonic()
        self._chunk = 0
        self._chunks: dict[int, list[int]] = {}
        self._owners: dict[int, int] = {}
        self._signs: dict[int, tuple[bytes, float]] = {}
        self._unowned_since: dict[int, float] = {}
        self._stopping = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="spectrum-fast-coordinator", daemon=True)

    def start(self) -> None:
        """Take what an attempt before a restart left behind, offer all work that remains, and go on in a thread."""
        self._take_in()
        wanted = [index for index, weight in enumerate(self._plan.weights) if weight.name not in self._ledger]
        for spans in cut_chunks(self._plan.weights, wanted, self._exchange.rank.count):
            self._offer(indices_of(spans))
        self._thread.start()

    def check(self) -> None:
        """Raise in the calling thread what ended the scan early, if something did."""
        if self.error is not None:
            raise self.error

    def stop(self, problem: str) -> None:
        """End the scan before it is done: take in what has been delivered, tell the others why."""
        self._problem = problem
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wait_for_others(self) -> None:
        """After the end: until every rank has heard of it, so that none finds the store gone."""
        self._thread.join()
        rank = self._exchange.rank
        while rank.hosts_store and not self._stopping.is_set():
            self._take_in()
            self._look_for_dead()
            present = self.seen - self._left - self.lost - {rank.rank}
            missing = rank.count - len(self.seen) if time.monotonic() - self._began < JOIN_SECONDS else 0
            if not present and not missing:
                return
            time.sleep(_POLL_SECONDS)

    def _run(self) -> None:
        try:
            while not self._ledger.complete and not self._stopping.is_set():
                self._take_in()
                self._look_for_dead()
                self._stopping.wait(_POLL_SECONDS)
            self._take_in()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self.error = error
            self._problem = self._problem or str(error) or type(error).__name__
        with contextlib.suppress(RankError):
            self._exchange.finish(self._problem)

    def _take_in(self) -> None:
        """Everything that was told since the last time."""
        while (event := self._exchange.told()) is not None:
            if "result" in event:
                if event["scan"] == self._scan:
                    self._ledger.record(decode_result(event), event["settings"])
            elif event["attempt"] == self._exchange.rank.attempt:
                self._hear(event["rank"], event)

    def _hear(self, rank: int, event: dict[str, Any]) -> None:
        if "error" in event and not self._stopping.is_set():
            raise RankError(f"rank {rank} on {event['host']}: {event['error']}")
        if "here" in event:
            self.seen.add(rank)
        elif "taken" in event:
            self._owners[event["taken"]] = rank
        elif "left" in event:
            self._left.add(rank)
        self._ledger.processes = max(1, len(self.seen - self._left - self.lost))

    def _look_for_dead(self) -> None:
        """Offer the work of ranks that are gone once more."""
        now = time.monotonic()
        ranks = sorted(self.seen - self._left)
        for rank, sign in zip(ranks, self._exchange.beats(ranks), strict=True):
            if rank not in self._signs or self._signs[rank][0] != sign:
                self._signs[rank] = (sign, now)
                self.lost.discard(rank)
            elif rank not in self.lost and now - self._signs[rank][1] > self._lease_seconds:
                self.lost.add(rank)
                self._say(
                    f"rank {rank} has given no sign of life for {self._lease_seconds:.0f} s; others take over its work"
                )
        gone = self.lost | self._left
        nobody_waits = self._exchange.offered() == 0
        for chunk in list(self._chunks):
            owner = self._owners.get(chunk)
            if owner is None and nobody_waits:
                # Taken by a rank that died before it could say so; or its word is still on the way.
                since = self._unowned_since.setdefault(chunk, now)
                if now - since <= self._lease_seconds:
                    continue
            elif owner is None or owner not in gone:
                continue
            indices = self._chunks.pop(chunk)
            remaining = [index for index in indices if self._plan.weights[index].name not in self._ledger]
            if remaining:
                self._offer(remaining)

    def _offer(self, indices: list[int]) -> None:
        self._chunk += 1
        self._chunks[self._chunk] = indices
        self._exchange.offer(self._chunk, spans_of(indices))
