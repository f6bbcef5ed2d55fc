"""The threads that read."""

from __future__ import annotations

import queue
import threading
import time

from spectrum_fast.read.stream.batch import Batch, read_task
from spectrum_fast.read.stream.layout import Task

THREAD_NAME = "spectrum-fast-read"


class Readers:
    """Threads that take tasks in the order in which they were given.

    Args:
        threads: how many; 0 reads in the thread that calls :meth:`submit`.
        stop: ends all reads within a moment once it is set; :meth:`close` sets it.
    """

    def __init__(self, threads: int, stop: threading.Event) -> None:
        self._stop = stop
        self._tasks: queue.SimpleQueue[tuple[Batch, Task] | None] = queue.SimpleQueue()
        # Daemons, so that a stream that was never closed does not keep the interpreter alive; close() joins them.
        self._threads: list[threading.Thread] = []
        self._add_threads(threads)

    def widen(self, threads: int) -> None:
        """Read with at least so many threads from now on, unless the caller's thread is the one that reads."""
        if self._threads:
            self._add_threads(threads - len(self._threads))

    def submit(self, batch: Batch) -> None:
        """Read a batch; its ``ready`` tells when that is done, well or badly."""
        for task in batch.tasks:
            if self._threads:
                self._tasks.put((batch, task))
            else:
                self._run(batch, task)

    def close(self) -> None:
        """Stop within a chunk; every batch that was submitted counts as read afterwards, cancelled or not."""
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _add_threads(self, count: int) -> None:
        for _ in range(count):
            name = f"{THREAD_NAME}-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while (taken := self._tasks.get()) is not None:
            self._run(*taken)
            del taken

    def _run(self, batch: Batch, task: Task) -> None:
        started = time.perf_counter()
        total = 0
        try:
            total = read_task(batch, task, self._stop)
        finally:
            batch.finish(time.perf_counter() - started, total)
