"""Peak memory of a scan: it does not grow with the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from support.processes import script

_SIDE = 1024
_BOUND_MB = 600 + 4 * (_SIDE * _SIDE * 4) / 1e6
"""What a scan may take: 600 MB and four times the largest matrix in float32."""


def write_large(path: Path, files: int, matrices_a_file: int) -> int:
    """A checkpoint of equal-sized distinct matrices; one random matrix is rolled, so that writing is quick."""
    path.mkdir()
    base = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    for file in range(files):
        tensors = {
            f"model.layers.{file * matrices_a_file + i}.mlp.up_proj.weight": base * (1 + file * matrices_a_file + i)
            for i in range(matrices_a_file)
        }
        save_file(tensors, path / f"model-{file + 1:05d}-of-{files:05d}.safetensors")
    return files * matrices_a_file


def peak_bytes(path: Path, method: str, count: int) -> int:
    done = subprocess.run(
        [sys.executable, script("scan_peak"), str(path), method, str(count)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
    )
    return int(done.stdout)


@pytest.mark.slow  # tests/scanning/test_buffer.py holds the peak of one scan in the common suite
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_memory_is_bounded_and_does_not_grow_with_the_model(tmp_path: Path) -> None:
    peaks = []
    for files in (3, 9):
        count = write_large(tmp_path / f"model{files}", files, matrices_a_file=20)
        peaks.append(peak_bytes(tmp_path / f"model{files}", "band", count) / 1e6)
    size_mb = sum(file.stat().st_size for file in (tmp_path / "model9").iterdir()) / 1e6
    assert size_mb > 370
    assert peaks[1] < _BOUND_MB
    assert peaks[1] - peaks[0] < 40, f"{peaks} MB: memory grows with the model"
