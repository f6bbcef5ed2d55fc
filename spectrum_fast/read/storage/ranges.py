"""One range of a remote file into memory, however often the network breaks."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from functools import lru_cache

from spectrum_fast.read.storage.network import Stop
from spectrum_fast.read.storage.problems import RemoteProblem, RemoteReadError
from spectrum_fast.read.storage.settings import RemoteSettings
from spectrum_fast.read.storage.stored_file import RemoteStamp
from spectrum_fast.read.storage.transport import Transport

_MAX_DOUBLINGS = 5


class RangeReader:
    """Reads ranges of one file, each with retries; several threads may use it at once.

    A try goes on after the last byte that came. Between two tries it waits, longer every time and at random, and at
    least as long as the server asked for; the number of tries and the whole time are bounded.

    Args:
        transport: makes single requests.
        settings: bounds.
    """

    def __init__(self, transport: Transport, settings: RemoteSettings) -> None:
        self.transport = transport
        self.settings = settings

    def read(self, view: memoryview, begin: int, expected: RemoteStamp | None, stop: Stop) -> tuple[int, RemoteStamp]:
        """Fill memory from ``begin`` on, as far as the file goes.

        Args:
            view: where to write.
            begin: offset of the first byte in the file.
            expected: the state that the file must have, or None for the first read.
            stop: breaks the read off; nothing is written to ``view`` after this has returned.

        Returns:
            Number of bytes, less than asked for only at the end of the file; state of the file.

        Raises:
            RemoteProblem: missing, forbidden, changed, no ranges, or broken off: nothing that a retry would mend.
            RemoteReadError: all tries failed.
        """
        tries = _Tries(self, stop, f"bytes {begin} to {begin + len(view)}")
        progress = _Progress(view, begin, expected)
        while True:
            try:
                stamp = self._request(progress, stop)
            except RemoteProblem as problem:
                tries.overcome(problem)
            else:
                return progress.done, stamp

    def read_whole(self, limit_bytes: int, stop: Stop) -> bytes | None:
        """Read a small file whole, in a plain request without a range; None if it is larger than ``limit_bytes``.

        Raises:
            RemoteProblem: missing, forbidden, or refused.
            RemoteReadError: all tries failed.
        """
        tries = _Tries(self, stop, "the file")
        while True:
            try:
                with _gate(self.settings.parts_in_flight):
                    return self.transport.get_whole(limit_bytes, stop)
            except RemoteProblem as problem:
                tries.overcome(problem)

    def _request(self, progress: _Progress, stop: Stop) -> RemoteStamp:
        """Ask once for all that is still missing, and take in what comes; returns if that was everything."""
        stop.check()
        expected = progress.stamp
        if expected is not None and not progress.missing:
            return expected  # the last try broke after its last byte
        etag = "" if expected is None else expected.etag
        with _gate(self.settings.parts_in_flight):
            begin, end = progress.begin + progress.done, progress.begin + progress.goal
            stamp, pieces = self.transport.get(begin, end, etag, stop)
            if expected is not None and stamp != expected:
                raise RemoteProblem("changed", _difference(expected, stamp))
            progress.stamp = stamp
            for piece in pieces:
                progress.take(piece)
                stop.check()
        if progress.missing:
            raise RemoteProblem("broken", f"the answer ended {progress.missing} bytes early")
        return stamp


@dataclass(slots=True)
class _Progress:
    """A range on its way into memory."""

    view: memoryview
    begin: int
    stamp: RemoteStamp | None
    done: int = 0

    @property
    def goal(self) -> int:
        """Bytes that can be had: what is asked for, as far as the file is known to go."""
        count = len(self.view)
        return count if self.stamp is None else max(0, min(count, self.stamp.size_bytes - self.begin))

    @property
    def missing(self) -> int:
        return self.goal - self.done

    def take(self, piece: bytes) -> None:
        """Put the next bytes in their place."""
        if len(piece) > self.missing:
            raise RemoteProblem("broken", "more bytes came than were asked for")
        self.view[self.done : self.done + len(piece)] = piece
        self.done += len(piece)


class _Tries:
    """Counts the tries of one read, and waits between them."""

    def __init__(self, reader: RangeReader, stop: Stop, what: str) -> None:
        self._reader = reader
        self._stop = stop
        self._what = what
        self._started = time.monotonic()
        self._failed = 0

    def overcome(self, problem: RemoteProblem) -> None:
        """Wait before the next try.

        Raises:
            RemoteProblem: another try would not help.
            RemoteReadError: there were enough tries, or the wait would be too long.
        """
        settings, transport = self._reader.settings, self._reader.transport
        self._failed += 1
        if problem.kind == "forbidden" and self._failed == 1 and transport.renew():
            return  # a signed address had run out
        if not problem.worth_a_retry:
            raise problem
        longest = settings.delay_seconds * 2 ** min(self._failed - 1, _MAX_DOUBLINGS)
        wait = longest * random.uniform(0.5, 1.0)  # noqa: S311 (spreads requests, guards nothing)
        if problem.kind == "throttled":
            transport.learn_pause()
        pause = transport.pause()
        wait = max(wait, pause)
        elapsed = time.monotonic() - self._started
        if self._failed >= settings.attempts or elapsed + wait > settings.patience_seconds:
            asked = f"; the server asks to wait {pause:.0f} s more" if pause else ""
            raise RemoteReadError(
                f"{transport.address}: {self._what} did not come in {self._failed} attempts over {elapsed:.0f} s; the "
                f"last problem: {problem.words}{asked}; check the connection and scan again, or copy the checkpoint "
                "here first"
            )
        self._stop.sleep(wait)


def _difference(expected: RemoteStamp, found: RemoteStamp) -> str:
    if expected.size_bytes != found.size_bytes:
        return f"it had {expected.size_bytes} bytes, now it has {found.size_bytes}"
    return "its entity tag, date or version is another one now"


@lru_cache(maxsize=4)
def _gate(parts_in_flight: int) -> threading.BoundedSemaphore:
    """Bounds requests at the same time, over all files of the process."""
    return threading.BoundedSemaphore(parts_in_flight)
