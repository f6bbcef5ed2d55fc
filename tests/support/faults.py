"""Faults on demand: system calls of a child process that fail, by way of a preloaded library (tests/trust/inject.c)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[1] / "trust" / "inject.c"


def build_injector(folder: Path) -> Path:
    """Compile the library; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = folder / "inject.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


TORN = -1000
"""``TORN - number`` instead of an error: signal ``number`` when half of a write is written."""


def rule(call: str, path: str, error: int, *, skip: int = 0, times: int = -1) -> str:
    """One rule: ``call`` on files whose path contains ``path`` fails with ``error`` (0: it is short; -N: signal N)."""
    return f"{call}:{path}:{skip}:{times}:{error}"


def variables(library: Path, *rules: str, clock_jump_seconds: int | None = None) -> dict[str, str]:
    """Environment of the child."""
    found = {"LD_PRELOAD": str(library), "INJECT": ";".join(rules)}
    if clock_jump_seconds is not None:
        found["INJECT_CLOCK"] = str(clock_jump_seconds)
    return found
