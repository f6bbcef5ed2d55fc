"""The GPU's own tests on an emulated device, where there is no GPU: the code around the kernels, to the letter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import emulated_cuda

TESTS = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    emulated_cuda.ASKED_FOR or torch.cuda.is_available(), reason="there is a GPU, or this process emulates one"
)
QUICK = [
    "emulated_cuda/test_emulated_cuda.py",
    "measure/spectra/test_batched_gpu.py::test_the_host_waits_three_times_a_batch",
    "measure/spectra/test_batched_gpu.py::test_known_spectra_come_out_right",
    "read/stream/test_loader_gpu.py",
    "scanning/test_overlap.py::test_weights_are_read_while_kernels_are_compiled",
    "measure/ops/test_compile_ahead.py",
    "measure/ops/test_device_graph.py",
]
WHOLE = [
    "measure/spectra/test_batched_gpu.py",
    "measure/spectra/test_engine_gpu.py",
    "scanning/test_scorers.py",
    "scanning/test_overlap.py",
    "scanning/test_live.py",
    "scanning/test_independence.py",
    "measure/ops/test_full_precision.py",
    "read/formats/test_scaled.py",
]


def run(*tests: str) -> None:
    """Run GPU-marked tests in a process that emulates a device; fail if one fails, is skipped, or none runs."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--no-header", "--tb=short", *tests]
    environment = {**os.environ, "EMULATED_CUDA": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("TRITON_INTERPRET", None)
    found = subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "passed" in found.stdout
    assert "skipped" not in found.stdout


def test_waits_copies_and_graphs() -> None:
    run(*QUICK)


@pytest.mark.slow
def test_everything_that_needs_no_kernel() -> None:
    run(*WHOLE)
