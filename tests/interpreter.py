"""Triton's interpreter in tests: chosen when triton is imported, so it needs a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""This process is the interpreter's."""

WITH_GPU = pytest.param("cuda", marks=pytest.mark.gpu)
IN_INTERPRETER_OR_ON_GPU = "interpreter" if INTERPRETED else WITH_GPU
on_both = pytest.mark.parametrize("device", [IN_INTERPRETER_OR_ON_GPU], indirect=True)
on_gpu = pytest.mark.parametrize("device", [WITH_GPU], indirect=True)
outside_the_interpreter = pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")


def run_interpreted(test_file: str) -> None:
    """Run the cases of a test file that are meant for the interpreter, and fail if one fails or none runs."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "interpreter and not in_the", "--no-header", test_file],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout
