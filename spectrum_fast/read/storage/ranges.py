"""One range of a remote file into memory, however often the network breaks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.network import Answer, Stop
from spectrum_fast.read.storage.problems import RemoteProblem, RemoteReadError
from spectrum_fast.read.storage.settings import remote_settings
from spectrum_fast.read.storage.stored_file import RemoteStamp
from spectrum_fast.read.storage.transport import Transport

_MAX_DOUBLINGS = 5


class RangeReader:
    """Reads ranges of one file, each with retries; several threads may use it at once.

    A try goes on after the last byte that came. Between two tries it waits, longer every time and at random, and at
    least as long as the server asked for; the number of tries and the whole time are bounded.

    Raises:
        BackendUnavailableError, CheckpointError: as :class:`Transport`.
    """

    def __init__(self, address: RemoteFile) -> None:
        self.settings = remote_settings()
        self._transport = Transport(address, self.settings)

    def read(self, view: memoryview, begin: int, expected: RemoteStamp | None, stop: Stop) -> tuple[int, RemoteStamp]:
        """Fill memory with the bytes from ``begin`` on, as far as the file goes; nothing is written to it afterwards.

        Args:
            view: where to write.
            begin: offset of the first byte in the file.
            expected: the state that the file must have, or None for the first read.
            stop: breaks the read off.

        Returns:
            Number of bytes; state of the file.

        Raises:
            RemoteProblem: missing, forbidden, changed, no ranges, or broken off: nothing that a retry would mend.
            RemoteReadError: all tries failed.
        """
        done, state = 0, expected

        def request() -> RemoteStamp:
            """Ask once for all that is still missing, and take in what comes; returns if that was everything."""
            nonlocal done, state
            stop.check()
            if state is not None and done == _available(view, begin, state):
                return state  # the last try broke after its last byte
            etag = "" if state is None else state.etag
            stamp, pieces = self._transport.get(begin + done, begin + _available(view, begin, state), etag, stop)
            if state is not None and stamp != state:
                raise RemoteProblem("changed", _difference(state, stamp))
            state = stamp
            missing = _available(view, begin, state) - done
            for piece in pieces:
                if len(piece) > missing:
                    raise RemoteProblem("broken", "more bytes came than were asked for")
                view[done : done + len(piece)] = piece
                done += len(piece)
                missing -= len(piece)
                stop.check()
            if missing:
                raise RemoteProblem("broken", f"the answer ended {missing} bytes early")
            return state

        stamp = self._persist(request, stop, f"bytes {begin} to {begin + len(view)}")
        return done, stamp

    def read_whole(self, limit_bytes: int, stop: Stop) -> bytes | None:
        """Read a small file whole, in a plain request without a range; None if it is larger than ``limit_bytes``.

        Raises:
            RemoteProblem: missing, forbidden, or refused.
            RemoteReadError: all tries failed.
        """
        return self._persist(lambda: self._transport.get_whole(limit_bytes, stop), stop, "the file")

    def _persist(self, request: Callable[[], Answer], stop: Stop, what: str) -> Answer:
        """Make a request until it succeeds, and wait in between.

        Raises:
            RemoteProblem: another try would not help.
            RemoteReadError: there were enough tries, or the wait would be too long.
        """
        settings, transport, started = self.settings, self._transport, time.monotonic()
        failed = 0
        while True:
            try:
                with _gate(settings.parts):
                    return request()
            except RemoteProblem as problem:
                failed += 1
                if problem.kind == "forbidden" and failed == 1 and transport.renew():
                    continue  # a signed address had run out
                if problem.kind not in ("throttled", "broken"):
                    raise
                longest = settings.delay_seconds * 2 ** min(failed - 1, _MAX_DOUBLINGS)
                wait = longest * random.uniform(0.5, 1.0)  # noqa: S311 (spreads requests, guards nothing)
                pause = transport.pause(throttled=problem.kind == "throttled")
                wait = max(wait, pause)
                elapsed = time.monotonic() - started
                if failed >= settings.attempts or elapsed + wait > settings.patience_seconds:
                    asked = f"; the server asks to wait {pause:.0f} s more" if pause else ""
                    raise RemoteReadError(
                        f"{transport.address}: {what} did not come in {failed} attempts over {elapsed:.0f} s; the last "
                        f"problem: {problem.words}{asked}; check the connection and scan again, or copy the checkpoint "
                        "here first"
                    ) from problem
            stop.sleep(wait)


def _available(view: memoryview, begin: int, state: RemoteStamp | None) -> int:
    """Bytes that can be had: as many as the memory holds, as far as the file is known to go."""
    return len(view) if state is None else max(0, min(len(view), state.size_bytes - begin))


def _difference(expected: RemoteStamp, found: RemoteStamp) -> str:
    if expected.size_bytes != found.size_bytes:
        return f"it had {expected.size_bytes} bytes, now it has {found.size_bytes}"
    return "its entity tag, date or version is another one now"


@lru_cache(maxsize=4)
def _gate(parts: int) -> threading.BoundedSemaphore:
    """Bounds requests at the same time, over all files of the process."""
    return threading.BoundedSemaphore(parts)
