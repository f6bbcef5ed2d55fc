"""Waiting for the network in a way that can be broken off.

obstore's blocking calls hold on until their answer or their time limit, half a minute and more in which neither Ctrl-C
nor closing the file would have any effect. Its asynchronous ones can be cancelled, which ends the request at once. They
run in one event loop, in a thread of its own; the thread that wants the answer looks up ten times a second.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NotYetError
from typing import TypeVar

from spectrum_fast.read.storage.problems import RemoteProblem, problem_of

READS_AT_ONCE = 8
LOOK_UP_SECONDS = 0.1
"""Time between two looks at the stop signals."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Stop:
    """Several stop signals as one: set as soon as one of them is.

    Args:
        events: the signals; None stands for one that is never set.
    """

    def __init__(self, *events: threading.Event | None) -> None:
        self._events = [event for event in events if event is not None]

    def also(self, event: threading.Event) -> Stop:
        """The same with one signal more."""
        return Stop(*self._events, event)

    def is_set(self) -> bool:
        """Whether one of them is set."""
        return any(event.is_set() for event in self._events)

    def check(self) -> None:
        """Raise :class:`RemoteProblem` of the kind ``closed`` if one of them is set."""
        if self.is_set():
            raise RemoteProblem("closed", "the file was closed")

    def sleep(self, seconds: float) -> None:
        """Wait so long.

        Raises:
            RemoteProblem: one of them was set meanwhile; at most :data:`LOOK_UP_SECONDS` ago.
        """
        while seconds > 0:
            self.check()
            time.sleep(min(seconds, LOOK_UP_SECONDS))
            seconds -= LOOK_UP_SECONDS
        self.check()


def wait_for(start: Callable[[], Awaitable[Answer]], stop: Stop) -> Answer:
    """Run an asynchronous call and wait for its answer.

    Args:
        start: makes the call; it runs in the event loop.
        stop: breaks it off.

    Raises:
        RemoteProblem: whatever the call raises, sorted; of the kind ``closed``, if it was broken off.
        StopAsyncIteration: the call's own.
    """

    async def run() -> Answer:
        return await start()

    stop.check()
    future = asyncio.run_coroutine_threadsafe(run(), _loop())
    try:
        while True:
            try:
                return future.result(LOOK_UP_SECONDS)
            except NotYetError:
                if future.done():  # the call's own
                    raise
                stop.check()
            except CancelledError as error:
                raise RemoteProblem("closed", "the request was cancelled") from error
    except (RemoteProblem, StopAsyncIteration):
        raise
    except Exception as error:  # obstore's errors have no base that covers all of them
        raise problem_of(error) from error
    finally:
        if not future.done():
            future.cancel()


def side_by_side(
    read: Callable[[Item, threading.Event], Answer], items: Iterable[Item], most: int = READS_AT_ONCE
) -> list[Answer]:
    """Several reads, up to ``most`` of them at once, since each waits for the network most of the time.

    They are given an event, which is set once one has failed, or the caller is interrupted: it does not wait for the
    rest of what they would read. When this returns, by whichever way, none of them is running.
    """
    abandon = threading.Event()
    with ThreadPoolExecutor(most, "spectrum-fast-remote") as pool:
        try:
            reads = [pool.submit(read, item, abandon) for item in items]
            for one in wait(reads, return_when=FIRST_EXCEPTION).done:
                one.result()
            return [one.result() for one in reads]
        finally:
            abandon.set()
            pool.shutdown(wait=False, cancel_futures=True)


_LEAVE_SECONDS = 0.2
"""Longest wait for the loop to end, and what obstore's threads get after it; they need a moment."""
_lock = threading.Lock()
_running: asyncio.AbstractEventLoop | None = None
_process = 0


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process; its thread sleeps while there is nothing to do, and ends with the process."""
    global _running, _process
    with _lock:
        if _running is None or _process != os.getpid():  # a fork takes the loop along, but not its thread
            _process = os.getpid()
            _running = asyncio.new_event_loop()
            thread = threading.Thread(target=_running.run_forever, name="network-of-spectrum-fast", daemon=True)
            thread.start()
            atexit.register(_leave, _running, thread, _process)
        return _running


def _leave(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    """End the loop while the interpreter is whole, and let obstore's own threads drop what they hold of Python.

    One that does so while the interpreter is taken down aborts the process (seen in 7 of 42 short runs).
    """
    if process != os.getpid():
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_LEAVE_SECONDS)
    time.sleep(_LEAVE_SECONDS)
