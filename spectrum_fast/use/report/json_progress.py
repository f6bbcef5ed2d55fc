"""Progress of a scan for programs: one JSON object a line.

Keys, in this order; what is not known yet is null::

    {"module": last module finished, "" in the first line,
     "done": modules finished, "total": modules to do, "failed": modules finished without a score,
     "resumed": modules taken over from the journal of an interrupted scan,
     "done_bytes", "total_bytes", "resumed_bytes": the same in bytes of the checkpoint,
     "elapsed_seconds": of this sitting, "left_seconds": about,
     "bytes_per_second": of this sitting, from file to score,
     "bound": "read" or "compute", whichever the speed hangs on,
     "read_seconds", "wait_seconds", "compute_seconds": sums over all processes; wait is scoring without data,
     "processes": at work}

The first line and the last are always written, those between at most ten a second. A scan is finished when ``done`` is
``total``; its exit code and its file say how it went.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.step import ScanProgress

_LINE_SECONDS = 0.1
"""Least time between two lines."""
_KEYS = ("done", "total", "failed", "resumed", "done_bytes", "total_bytes", "resumed_bytes", "elapsed_seconds",
         "left_seconds", "bytes_per_second", "bound", "read_seconds", "wait_seconds", "compute_seconds",
         "processes")  # fmt: skip
"""What a step tells besides the module's name, in the order of the line."""


class JsonMeter:
    """Called with every step of a scan; writes lines to ``stream``, or nothing if that is None.

    A reader that has gone away ends the lines, not the scan.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._last_line = -_LINE_SECONDS

    def __call__(self, step: ScanProgress) -> None:
        """Write one step."""
        now = time.monotonic()
        if self._stream is None or (now - self._last_line < _LINE_SECONDS and step.name and step.done < step.total):
            return
        self._last_line = now
        try:
            self._stream.write(format_step(step) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None


def format_step(step: ScanProgress) -> str:
    """One step as a line of JSON, without the line's end."""
    entry: dict[str, Any] = {"module": step.name}
    for key in _KEYS:
        value = getattr(step, key)
        entry[key] = round(value, 3) if isinstance(value, float) else value
    return json.dumps(entry, allow_nan=False)


@contextmanager
def open_json_meter(target: str, stderr: TextIO) -> Iterator[JsonMeter]:
    """A meter for what the user named.

    ``-`` stands for ``stderr``, anything else is a path (``/dev/fd/3`` a descriptor), and empty means no lines at all.

    Raises:
        UsageError: the path cannot be written.
    """
    if not target or target == "-":
        yield JsonMeter(stderr if target else None)
        return
    try:
        # Opened for appending, and line by line, so that somebody can follow the file.
        stream = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), "w", encoding="utf-8")
    except OSError as cause:
        raise UsageError(
            f"--json-progress {target}: cannot be written: {cause.strerror or cause}; name another, or - for stderr"
        ) from cause
    try:
        yield JsonMeter(stream)
    finally:
        with suppress(OSError):
            stream.close()
