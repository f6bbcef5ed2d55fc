"""The wheel installs without a compiler and works; built for real, hence slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_wheel


@pytest.mark.slow
def test_sdist_and_wheel(tmp_path: Path) -> None:
    for module in ("build", "auditwheel", "scikit_build_core", "nanobind"):
        pytest.importorskip(module)
    sdist, wheel = check_wheel.build(tmp_path)
    assert check_wheel.check_sdist(sdist) > 100
    assert check_wheel.check_wheel(wheel) > 50
    found = check_wheel.try_out(wheel)
    assert found["backend"] == "native"
    assert found["modules"]
