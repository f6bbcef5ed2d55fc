"""A scan as a process of its own, to be interrupted at will; shared by the tests of journal and ranks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

OPTIONS = ("--method", "svd", "--threads", "1")
"""Slow enough to be interrupted, and the same bits every time."""
LIMIT_SECONDS = 180


def command(model: Path, out: Path, *more: object) -> list[str]:
    return [sys.executable, "-m", "spectrum_fast", "scan", str(model), "--out", str(out), *OPTIONS, *map(str, more)]


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TORCHELASTIC", "MASTER_"))}
    return {**kept, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **extra}


def start(
    model: Path, out: Path, *more: object, variables: Mapping[str, str] | None = None, preexec: Callable | None = None
) -> subprocess.Popen[str]:
    """A scan in a process that takes SIGINT like one in a terminal, whatever the shell did before."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if preexec is not None:
            preexec()

    return subprocess.Popen(
        command(model, out, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**(variables or {})),
        preexec_fn=prepare,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"no end within {LIMIT_SECONDS} s")
    return process.returncode, stdout, stderr


def journal_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.journal")


def finished(journal: Path) -> list[str]:
    """Names of the modules in a journal, read without the code under test."""
    names = []
    for line in journal.read_bytes().split(b"\n"):
        checksum, _, content = line.partition(b" ")
        if content.startswith(b'{"module":{"name":"') and checksum == b"%08x" % zlib.crc32(content):
            names.append(content.removeprefix(b'{"module":{"name":"').partition(b'"')[0].decode())
    return names


def wait_for_modules(process: subprocess.Popen[str], journal: Path, count: int) -> bool:
    """Until the journal holds so many modules; False if the scan ended before."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if journal.exists() and len(finished(journal)) >= count:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    process.kill()
    pytest.fail("the scan does not come forward")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
