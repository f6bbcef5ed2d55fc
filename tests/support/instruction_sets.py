"""Kernels under a capped instruction set: the cap is read once a process, so each level needs one of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.prepared import run_prepared
from support.processes import script


def run_at_level(level: str, feature: str | None, name: str, *arguments: str) -> Any:
    """The JSON that a script of ``support/processes`` prints with ``SPECTRUM_FAST_ISA=level``.

    Skips where the processor lacks ``feature``.
    """
    from spectrum_fast import _native

    if feature is not None and not _native.cpu_features()[feature]:
        pytest.skip(f"this processor (or SPECTRUM_FAST_ISA) has no {level}")
    done = run_prepared(script(name), *arguments, SPECTRUM_FAST_ISA=level)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
