"""Kernels are compiled beside each other; what fails is told, and ends nothing else."""

from __future__ import annotations

import threading

import pytest
import torch

from spectrum_fast.measure.ops import compile_ahead
from spectrum_fast.measure.ops.compile_ahead import JOBS, RARE


def test_jobs_run_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)
    monkeypatch.setattr(compile_ahead, "JOBS", dict.fromkeys("abc", lambda: together.wait(timeout=60)))
    monkeypatch.setattr(compile_ahead, "usable_cores", lambda: 3)
    assert compile_ahead.compile_ahead("cpu") == {}


def test_a_job_that_fails_ends_no_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise ValueError("no such instruction")

    done: list[str] = []
    monkeypatch.setattr(compile_ahead, "JOBS", {"a": fails, "b": lambda: done.append("b")})
    assert compile_ahead.main() == 1
    said = capsys.readouterr()
    assert "a FAILED  ValueError: no such instruction" in said.err
    assert "1 of 2 jobs" in said.out
    assert done == ["b"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_kernel_of_a_scan_compiles_and_runs() -> None:
    assert compile_ahead.compile_ahead("cuda") == {}
    assert set(JOBS) > RARE
