"""Triton's interpreter in tests: chosen when triton is imported, so it needs a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""This process is the interpreter's."""

WITH_GPU = pytest.param("cuda", marks=pytest.mark.gpu)
IN_INTERPRETER_OR_ON_GPU = "interpreter" if INTERPRETED else WITH_GPU
on_both = pytest.mark.parametrize("device", [IN_INTERPRETER_OR_ON_GPU], indirect=True)
on_gpu = pytest.mark.parametrize("device", [WITH_GPU], indirect=True)
outside_the_interpreter = pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")


class _Runs:
    """Runs of the interpreter, one at a time, in a thread beside the tests: they use one core, and so do most tests."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._begun: dict[str, Future[subprocess.CompletedProcess[str]]] = {}

    def begin(self, test_file: str) -> Future[subprocess.CompletedProcess[str]]:
        """Run the cases of a test file that are meant for the interpreter, unless that was asked for before."""
        if test_file not in self._begun:
            self._begun[test_file] = self._pool.submit(_interpret, test_file)
        return self._begun[test_file]

    def stop(self) -> None:
        """Begin no further one."""
        self._pool.shutdown(cancel_futures=True)


_RUNS = _Runs()


@contextmanager
def interpreting_ahead(test_files: Iterable[str]) -> Iterator[None]:
    """Begin the runs that tests will ask for, in that order."""
    for test_file in test_files:
        _RUNS.begin(test_file)
    yield
    _RUNS.stop()


def interpreter_problem(triton: str, numpy: str) -> str | None:
    """Why the interpreter of this release cannot run beside this numpy; None if it can."""

    def release(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".")[:2])

    if release(triton) < (3, 7) and release(numpy) >= (2, 4):
        return f"Triton {triton}'s interpreter needs numpy below 2.4 (found {numpy}), which takes arrays for numbers"
    return None


def run_interpreted(test_file: str) -> None:
    """Run the cases of a test file that are meant for the interpreter, and fail if one fails or none runs."""
    if problem := interpreter_problem(version("triton"), version("numpy")):
        pytest.skip(problem)
    run = _RUNS.begin(test_file).result()
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout


def _interpret(test_file: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "interpreter and not in_the", "--no-header", test_file],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
