"""A clock for threads that sleep: its time passes only while every thread of the process has nothing to do.

A busy machine delays what a test computes and not what the clock shows, so times can be asserted to the digit.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from pathlib import Path

_TASKS = Path("/proc/self/task")
IS_POSSIBLE = _TASKS.exists()
_LOOK_SECONDS = 0.002


class VirtualClock:
    """Entered, it runs; ``now`` is its time in seconds, from 0 on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleeping: list[tuple[float, int, threading.Event]] = []
        self._number = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""
        self.sleep_until(self.now + seconds)

    def sleep_until(self, when: float) -> None:
        """Let time pass until then."""
        wake = threading.Event()
        with self._lock:
            heapq.heappush(self._sleeping, (when, next(self._number), wake))
        wake.wait()

    def __enter__(self) -> VirtualClock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            before = self._others()
            time.sleep(_LOOK_SECONDS)  # who waits for the interpreter gets it here, and has run by the next look
            if before != self._others() or any(state != "S" for state, *_ in before.values()):
                continue
            with self._lock:
                if self._sleeping:
                    when, _, wake = heapq.heappop(self._sleeping)
                    self.now = max(self.now, when)
                    wake.set()

    def _others(self) -> dict[str, tuple[str, ...]]:
        """State of every other thread, and how often it has gone to sleep or been interrupted so far."""
        found = {}
        for task in os.listdir(_TASKS):
            if int(task) == self._thread.native_id:
                continue
            try:
                lines = (_TASKS / task / "status").read_text().splitlines()
            except OSError:  # has just ended
                continue
            fields = dict(line.split(":", 1) for line in lines)
            switches = (fields["voluntary_ctxt_switches"], fields["nonvoluntary_ctxt_switches"])
            found[task] = (fields["State"].split()[0], *switches)
        return found


class Storage:
    """``os.preadv`` of a file system that gives so many bytes a second, to all threads together, and knows how many."""

    def __init__(self, clock: VirtualClock, bytes_per_second: float) -> None:
        self.read_bytes = 0
        self._clock, self._rate, self._preadv = clock, bytes_per_second, os.preadv
        self._busy_until = 0.0
        self._lock = threading.Lock()

    def preadv(self, descriptor: int, buffers: list[memoryview], offset: int) -> int:
        got = self._preadv(descriptor, buffers, offset)
        with self._lock:
            self._busy_until = max(self._busy_until, self._clock.now) + got / self._rate
            self.read_bytes += got
            until = self._busy_until
        self._clock.sleep_until(until)
        return got
