"""A file behind a network, open for positional reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.network import Stop, side_by_side
from spectrum_fast.read.storage.problems import RemoteProblem, RemoteReadError
from spectrum_fast.read.storage.ranges import RangeReader

OPENING_BYTES = 128 << 10
"""Bytes read when a file is opened: one request gives its state and, for nearly every file, its whole header (a shard
of an 8B model has about 30 kB of it)."""


class RemoteStoredFile:
    """A remote file, read by ranges; large reads are split into parts that are fetched side by side.

    Every answer must bear the size, entity tag, date and version of the first one, and is asked for under ``If-Match``
    where the server gave a strong tag. So a file that changes is noticed at the next byte that is read of it, and
    :meth:`require_unchanged` costs no request.

    Once ``stop`` is set, opening and reading end within a moment with an error; :meth:`close` has the same effect.

    Raises:
        CheckpointError: missing, forbidden, empty, not served by ranges, or not reachable.
        BackendUnavailableError: obstore is not installed.
    """

    descriptor = None

    def __init__(self, address: RemoteFile, stop: threading.Event | None = None) -> None:
        self._address = address
        self._closed = threading.Event()
        self._stop = Stop(self._closed, stop)
        self._changed: CheckpointError | None = None
        self._reader = RangeReader(address)
        start = bytearray(OPENING_BYTES)
        with explained(address):
            count, self.stamp = self._reader.read(memoryview(start), 0, None, self._stop)
        self._start = bytes(start[:count])

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read by parallel ranges; see :meth:`StoredFile.read_into`. All that was asked for is read, to the end."""
        if self._stop.is_set():
            raise RemoteReadError(f"{self._address}: the file was closed")
        count = max(0, min(len(buffer), self.stamp.size_bytes - offset))
        if offset + count <= len(self._start):
            buffer[:count] = self._start[offset : offset + count]
            return count
        step = self._reader.settings.part_bytes

        def read_part(begin: int, abandon: threading.Event) -> None:
            part = buffer[begin : min(begin + step, count)]
            self._reader.read(part, offset + begin, self.stamp, self._stop.also(abandon))

        try:  # the caller's memory is not written to after we return, come what may: all parts have ended by then
            side_by_side(read_part, range(0, count, step), self._reader.settings.parts)
        except RemoteProblem as problem:
            if problem.kind in ("closed", "forbidden", "refused"):
                raise RemoteReadError(
                    f"{self._address}: {problem.words}; {_advice(self._address, problem)}"
                ) from problem
            self._changed = refusal(self._address, problem, opened=True)
            raise self._changed from problem
        return count

    def require_unchanged(self) -> None:
        """Every byte was checked when it came; raises again if a change was seen."""
        if self._changed is not None:
            raise self._changed

    def close(self) -> None:
        """End reads in progress, in other threads too, at their next piece."""
        self._closed.set()


def fetch_small_file(address: RemoteFile, limit_bytes: int) -> bytes:
    """Read a whole remote file that must not be larger than ``limit_bytes``, in one request.

    Raises:
        CheckpointError: too large, missing, forbidden or not reachable.
    """
    with explained(address):
        data = RangeReader(address).read_whole(limit_bytes, Stop())
    if data is None:
        raise CheckpointError(
            f"{address}: expected at most {limit_bytes} bytes, found more; this is not a checkpoint's file"
        )
    return data


@contextmanager
def explained(address: RemoteFile) -> Iterator[None]:
    """What is wrong with requests inside, as the error of that file."""
    try:
        yield
    except RemoteProblem as problem:
        raise refusal(address, problem) from problem
    except RemoteReadError as error:
        raise CheckpointError(str(error)) from error


def refusal(address: RemoteFile, problem: RemoteProblem, opened: bool = False) -> CheckpointError:
    """A problem that no retry mends in words, with what to do; absence of a file that was opened is a change."""
    if opened and problem.kind in ("missing", "changed"):
        return CheckpointError(
            f"{address}: the file was replaced or removed while being read ({problem.words}); scan again when nothing "
            "writes to it"
        )
    if problem.kind == "changed" and problem.words.startswith("416"):
        return CheckpointError(f"{address}: expected a safetensors file, found an empty one; save it again")
    return CheckpointError(f"{address}: cannot be read: {problem.words}; {_advice(address, problem)}")


_ADVICE = {
    "missing": "check the address",
    "no ranges": "serve it with a server that answers ranges with 206 (nginx, caddy, an object store), or copy the "
    "checkpoint here first",
    "closed": "nothing more is read",
}
_ACCESS = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or AWS_SKIP_SIGNATURE=true for a public bucket "
    "(docs/sources.md)",
    "gs": "set GOOGLE_SERVICE_ACCOUNT to the path of a key file, or GOOGLE_SKIP_SIGNATURE=true for a public bucket "
    "(docs/sources.md)",
    "hf": "accept the model's licence on its page, or log in with `hf auth login`",
}


def _advice(address: RemoteFile, problem: RemoteProblem) -> str:
    if problem.kind == "forbidden":
        web = "check user name and password, or whether the signature in the address has expired"
        return _ACCESS.get(address.scheme, web)
    return _ADVICE.get(problem.kind, "check the address and the server")
