"""The command line in processes forked from one that has imported everything: a start takes milliseconds, not seconds.

The fault injector (tests/trust/inject.c) is loaded in all of them, so that a command can be struck by a signal at an
exactly chosen system call, or after a chosen time.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 120
_PLENTY = 10**9
"""Calls that a rule lets through where it only counts."""
_HELD = {signal.SIGINT, signal.SIGTERM}
_PARTS = (
    "torch",
    "spectrum_fast.use.cli",
    "spectrum_fast.use.cli.scan_session",
    "spectrum_fast.use.cli.output",
    "spectrum_fast.use.laser",
    "spectrum_fast.choose.library",
    "spectrum_fast.use.report.json_progress",
    "spectrum_fast.use.report.progress",
    "spectrum_fast.use.report.scan_map",
    "spectrum_fast.use.report.table",
    "spectrum_fast.choose.selection.formats",
)


@dataclass(frozen=True)
class Ended:
    """What became of one command.

    Attributes:
        code: exit code, or minus the signal that ended it.
        stderr: what it said.
        seconds: how long it ran.
        calls: what was watched: system calls that change a file, and how many of them write; None if it did not live
            to say.
    """

    code: int
    stderr: str
    seconds: float
    calls: tuple[int, int] | None


class Forked:
    """Runs commands one after the other; use it as a context manager.

    Args:
        injector: the compiled library.
        folder: for the words that a command says.
    """

    def __init__(self, injector: Path, folder: Path) -> None:
        self._injector, self._folder = injector, folder

    def __enter__(self) -> Forked:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._injector), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(self._injector), "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LIMIT_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(
        self,
        arguments: Sequence[object],
        *,
        rules: str = "",
        watch: str = "",
        kill: signal.Signals | None = None,
        after_seconds: float = 0.0,
    ) -> Ended:
        """Run ``spectrum-fast ARGUMENTS``.

        Args:
            arguments: of the command line.
            rules: of the injector.
            watch: count the calls that change files whose path contains this, instead.
            kill: send this signal ...
            after_seconds: ... after so long.
        """
        if watch:
            rules = ";".join(f"{call}:{watch}:{_PLENTY}:-1:0" for call in ("change", "write"))
        order = {
            "arguments": [str(argument) for argument in arguments],
            "rules": rules,
            "watched": bool(watch),
            "kill": int(kill or 0),
            "after_seconds": after_seconds,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Ended(**told | {"calls": told["calls"] and tuple(told["calls"])})


def _serve(injector: str, folder: str) -> None:
    import importlib

    for part in _PARTS:
        importlib.import_module(part)
    _warm_up()
    library = ctypes.CDLL(injector)  # the one that is preloaded
    library.inject_left.restype = ctypes.c_long
    words, count = Path(folder) / "stderr", Path(folder) / "calls"
    for line in sys.stdin:
        order = json.loads(line)
        count.unlink(missing_ok=True)
        started = time.perf_counter()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)  # until the child has its handlers
        child = os.fork()
        if child == 0:
            _be_the_command(order, library, words, count)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        code = _outcome(child, order, started)
        answer = {
            "code": code,
            "stderr": words.read_text(),
            "seconds": time.perf_counter() - started,
            "calls": json.loads(count.read_text()) if count.exists() else None,
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _warm_up() -> None:
    """The command line imports the rest when it is first used."""
    from spectrum_fast.use.cli import main

    sys.argv = ["spectrum-fast", "scan", "--help"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()


def _be_the_command(order: dict[str, Any], library: ctypes.CDLL, words: Path, count: Path) -> None:
    """Never returns."""
    code = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        told = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for target, source in ((0, null), (1, null), (2, told)):
            os.dup2(source, target)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from spectrum_fast.use.cli import main

        sys.argv = ["spectrum-fast", *order["arguments"]]
        library.inject(order["rules"].encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        calls = [_PLENTY - library.inject_left(index) for index in range(2)]
        library.inject(b"")
        if order["watched"]:
            count.write_text(json.dumps(calls))
    except KeyboardInterrupt:
        code = 130  # a signal at the very last moment
    finally:
        sys.stderr.flush()
        os._exit(code)


def _outcome(child: int, order: dict[str, Any], started: float) -> int:
    """Wait for the command; a negative number is the signal that ended it."""
    if order["kill"]:
        time.sleep(order["after_seconds"])
        os.kill(child, order["kill"])
    deadline = started + LIMIT_SECONDS
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.perf_counter() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 99  # it hung
        time.sleep(0.001)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]
    _serve(*sys.argv[1:])
