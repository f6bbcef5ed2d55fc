"""What the processes of one scan tell each other, through torch.distributed's own key-value store.

Rank 0 announces the scan and puts chunks of work into a queue; every rank takes chunks from it and puts what it has to
say (that it is there, what it took, what a module came to, that it failed, that it leaves) into another, which rank 0
empties. Everything is JSON, a few hundred bytes a message; tensors are never sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from spectrum_fast.errors import RankError
from spectrum_fast.scanning.chunks import Span
from spectrum_fast.scanning.ranks import Rank

CONNECT_SECONDS = 60.0
"""How long a rank looks for the store before it gives up."""

_FAREWELL_SECONDS = 0.5
"""Time for others to read why a scan ended; they look several times a second."""

Answer = TypeVar("Answer")


class Exchange:
    """One connection to the store; each thread needs its own (:meth:`clone`).

    Args:
        rank: which process this is.

    Raises:
        RankError: the store cannot be reached or, by rank 0, not be started. So do all methods when touch is lost.
    """

    def __init__(self, rank: Rank, *, store: Any = None) -> None:
        self.rank = rank
        self._scan = f"spectrum_fast/{rank.run}"
        self._attempt = f"{self._scan}/{rank.attempt}"
        self._store = store if store is not None else self._connect()

    def clone(self) -> Exchange:
        """Another connection to the same store."""
        return Exchange(self.rank, store=self._ask(lambda: self._store.clone()))

    def announce(self, what: dict[str, Any]) -> None:
        """Say what this scan is (rank 0)."""
        self._ask(lambda: self._store.set(f"{self._attempt}/scan", json.dumps(what)))

    def announcement(self) -> dict[str, Any] | None:
        """What rank 0 announced, or None if it has not yet."""
        return self._look(f"{self._attempt}/scan")

    def finish(self, problem: str = "") -> None:
        """Say that the scan is over (rank 0): all is done, or there is a problem."""
        self._ask(lambda: self._store.set(f"{self._attempt}/finished", json.dumps({"problem": problem})))

    def abandon(self, problem: str) -> None:
        """End the scan early (rank 0), and stay a moment if the store goes with this process: others shall hear why."""
        with suppress(RankError):
            if self.finished() != problem:
                self.finish(problem)
            if self.rank.hosts_store:
                time.sleep(_FAREWELL_SECONDS)

    def finished(self) -> str | None:
        """None while the scan goes on; else the problem, or an empty text if all is done."""
        found = self._look(f"{self._attempt}/finished")
        return None if found is None else str(found["problem"])

    def offer(self, chunk: int, spans: Sequence[Span]) -> None:
        """Put a chunk of work into the queue (rank 0)."""
        message = json.dumps([chunk, spans])
        self._ask(lambda: self._store.queue_push(f"{self._attempt}/work", message))

    def offered(self) -> int:
        """Number of chunks that nobody has taken."""
        return self._ask(lambda: self._store.queue_len(f"{self._attempt}/work"))

    def take(self) -> tuple[int, list[Span]] | None:
        """Take the next chunk, and tell rank 0; None if there is none at the moment."""
        message = self._pop(f"{self._attempt}/work")
        if message is None:
            return None
        chunk, spans = message
        self.tell({"taken": chunk})
        return chunk, [tuple(span) for span in spans]

    def tell(self, what: dict[str, Any]) -> None:
        """Tell rank 0 something."""
        message = json.dumps({"rank": self.rank.rank, "attempt": self.rank.attempt, **what})
        self._ask(lambda: self._store.queue_push(f"{self._scan}/events", message))

    def told(self) -> dict[str, Any] | None:
        """The next thing that a rank told, or None (rank 0); results of an attempt before a restart are among them."""
        return self._pop(f"{self._scan}/events")

    def beat(self, count: int) -> None:
        """Show that this rank is alive."""
        self._ask(lambda: self._store.set(f"{self._attempt}/beat/{self.rank.rank}", str(count)))

    def beats(self, ranks: Sequence[int]) -> list[bytes]:
        """The last sign of life of each of these ranks, which must have given one."""
        keys = [f"{self._attempt}/beat/{rank}" for rank in ranks]
        return self._ask(lambda: self._store.multi_get(keys)) if keys else []

    def _look(self, key: str) -> Any:
        return (
            json.loads(self._ask(lambda: self._store.get(key))) if self._ask(lambda: self._store.check([key])) else None
        )

    def _pop(self, queue: str) -> Any:
        def pop() -> bytes | None:
            try:
                return self._store.queue_pop(queue, block=False)
            except dist.QueueEmptyError:
                return None

        message = self._ask(pop)
        return None if message is None else json.loads(message)

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        try:
            return question()
        except dist.DistError as cause:
            raise RankError(
                f"rank {self.rank.rank} lost touch with the store of this scan at {self.rank.host}:{self.rank.port}: "
                "rank 0 is gone, or the network. Run the same command again: the scan goes on from rank 0's journal"
            ) from cause

    def _connect(self) -> Any:
        rank = self.rank
        try:
            return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
                rank.host,
                rank.port,
                is_master=rank.hosts_store,
                wait_for_workers=False,
                timeout=timedelta(seconds=CONNECT_SECONDS),
            )
        except (dist.DistError, RuntimeError, ValueError) as cause:
            todo = (
                "is the port taken? Choose another MASTER_PORT"
                if rank.hosts_store
                else "is rank 0 running, and MASTER_ADDR and MASTER_PORT the same for all?"
            )
            raise RankError(
                f"rank {rank.rank} cannot {'start' if rank.hosts_store else 'reach'} the store of this scan at "
                f"{rank.host}:{rank.port}; {todo}"
            ) from cause
