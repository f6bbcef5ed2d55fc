"""Kernels under a capped instruction set: the cap is read once a process, so each level needs one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from support.processes import script


def run_at_level(level: str, feature: str | None, name: str) -> Any:
    """The JSON that a script of ``support/processes`` prints with ``SPECTRUM_FAST_ISA=level``.

    Skips where the processor lacks ``feature``.
    """
    from spectrum_fast import _native

    if feature is not None and not _native.cpu_features()[feature]:
        pytest.skip(f"this processor (or SPECTRUM_FAST_ISA) has no {level}")
    environment = {**os.environ, "SPECTRUM_FAST_ISA": level, "OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, script(name)], env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)
