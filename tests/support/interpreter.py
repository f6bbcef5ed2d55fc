"""Triton's interpreter in tests: chosen when triton is imported, so it needs a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""This process is the interpreter's."""

WITH_GPU = pytest.param("cuda", marks=pytest.mark.gpu)
IN_INTERPRETER_OR_ON_GPU = "interpreter" if INTERPRETED else WITH_GPU
on_both = pytest.mark.parametrize("device", [IN_INTERPRETER_OR_ON_GPU], indirect=True)
on_gpu = pytest.mark.parametrize("device", [WITH_GPU], indirect=True)
outside_the_interpreter = pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")


def interpreter_problem(triton: str, numpy: str) -> str | None:
    """Why the interpreter of this release cannot run beside this numpy; None if it can."""

    def release(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".")[:2])

    if release(triton) < (3, 7) and release(numpy) >= (2, 4):
        return f"Triton {triton}'s interpreter needs numpy below 2.4 (found {numpy}), which takes arrays for numbers"
    return None


def run_interpreted(*test_files: str) -> None:
    """Run the cases of test files that are meant for the interpreter, and fail if one fails or a file has none."""
    if problem := interpreter_problem(version("triton"), version("numpy")):
        pytest.skip(problem)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-k", "interpreter and not in_the", "--no-header", *test_files],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "skipped" not in run.stdout
    passed = set(re.findall(r"(\w+\.py)::.* PASSED", run.stdout))
    assert passed == {Path(file).name for file in test_files}
