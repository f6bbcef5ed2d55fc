"""A whole scan of a generated checkpoint: seconds, bytes a second, and the peak of resident memory.

The scan runs in a fresh process, whose ``VmHWM`` is its own. The bound is 600 MB plus four times the largest matrix in
float32; in the full setting the checkpoint is at least five times that, so a scan that holds the model cannot pass.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.floors import drop_from_cache, read_seconds
from bench.make_checkpoint import WrittenCheckpoint, write_checkpoint

BASE_BYTES = 600_000_000
"""Memory allowed beside the matrices: the interpreter, torch and buffers."""

SETTINGS: dict[str, dict[str, Any]] = {
    # 18 layers of Llama-3-8B without embeddings: 7.9 GB; the largest matrix is 4096x14336, so the bound is 1.54 GB
    "full": {"like": "llama-3-8b", "layers": 18, "scale": 1, "embeddings": False},
    "small": {"like": "llama-3-8b", "layers": 3, "scale": 8, "embeddings": False},
}

SCAN = """
import json, sys, time
import spectrum_fast as sf
start = time.perf_counter()
scan = sf.scan(sys.argv[1])
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "seconds": seconds,
    "modules": len(scan.modules),
    "failures": len(scan.failures),
    "peak_bytes": int(status["VmHWM"].split()[0]) * 1024,
}))
"""


def scan_in_subprocess(path: Path) -> dict[str, Any]:
    """Scan a checkpoint in a fresh interpreter; returns its seconds, module count and peak resident bytes."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def checkpoint(bench_size: str, tmp_path: Path) -> Iterator[WrittenCheckpoint]:
    """A generated checkpoint; its gigabytes go when the test ends, however it ends."""
    try:
        yield write_checkpoint(tmp_path / "model", **SETTINGS[bench_size])
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.benchmark(group="scan")
def test_scan(bench_size: str, benchmark: Any, checkpoint: WrittenCheckpoint) -> None:
    written = checkpoint
    bound_bytes = BASE_BYTES + 4 * 4 * written.largest_matrix_values
    if bench_size == "full":
        assert written.total_bytes >= 5 * bound_bytes, "too small a checkpoint to say anything about memory"
    read_cold = read_seconds(written.files, cold=True)
    read_warm = read_seconds(written.files, cold=False)
    drop_from_cache(written.files)

    found = benchmark.pedantic(scan_in_subprocess, args=(written.path,), rounds=1)
    assert found["failures"] == 0
    assert found["peak_bytes"] <= bound_bytes, (
        f"peak {found['peak_bytes'] / 1e6:.0f} MB, bound {bound_bytes / 1e6:.0f} MB"
    )
    benchmark.extra_info |= {
        **{key: value for key, value in SETTINGS[bench_size].items() if key != "embeddings"},
        "checkpoint_bytes": written.total_bytes,
        "modules": found["modules"],
        "scan_seconds": found["seconds"],
        "gigabytes_per_second": written.total_bytes / found["seconds"] / 1e9,
        "peak_bytes": found["peak_bytes"],
        "bound_bytes": bound_bytes,
        "read_cold_seconds": read_cold,
        "read_warm_seconds": read_warm,
        "floor_seconds": read_cold,
        "ratio_to_floor": found["seconds"] / read_cold,
    }
