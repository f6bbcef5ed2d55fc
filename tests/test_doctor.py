"""The facts that ``doctor`` collects."""

from __future__ import annotations

import getpass
import platform
from importlib.metadata import version

import pytest
import torch

from spectrum_fast.doctor import examine
from spectrum_fast.measure.ops.dispatch import native_problem
from spectrum_fast.version import __version__


def test_facts_are_those_of_this_machine() -> None:
    found = examine()
    assert found["spectrum_fast"] == __version__
    assert found["torch"] == version("torch")
    assert found["python"].startswith(platform.python_version())
    assert ("none usable" in found["GPU"]) is not torch.cuda.is_available()
    assert all(isinstance(value, str) and value for value in found.values())


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(10)), raising=False)
    assert examine()["cores"] == f"10 of 64 usable ({torch.get_num_threads()} threads in use)"


@pytest.mark.skipif(native_problem() is not None, reason="needs the compiled extension")
def test_kernels_are_named() -> None:
    found = examine()
    assert found["backend on cpu"] == "native"
    assert {f"Gram kernel, {name}" for name in ("bfloat16", "float16", "float32", "float64")} < set(found)


def test_nothing_names_the_user_or_the_host() -> None:
    text = "\n".join(examine().values())
    assert platform.node() not in text
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text
