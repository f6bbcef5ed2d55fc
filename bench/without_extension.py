"""What a matrix costs without the compiled extension, and up to which short side the SVD is then the faster way.

Usage: python -m bench.without_extension    (two minutes on one core; writes bench/results/without-extension.json)

Three ways through ``sf.spectrum``: with the extension, by the float64 SVD, and by the band with torch operations alone.
They take turns, one thread each, and processor seconds are counted, so that a busy machine changes little: the
measurement behind ``SMALL_SIDE_OF_REFERENCE`` (``spectrum_fast/measure/spectra/engine.py``).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

import spectrum_fast as sf
from bench.machine import machine_header
from bench.results_file import SCHEMA, write_results
from spectrum_fast.measure.ops.dispatch import set_threads, use_backend
from spectrum_fast.measure.spectra.options import Method

PATH = Path(__file__).resolve().parent / "results" / "without-extension.json"
SHAPES = ((512, 512), (1024, 1024), (2048, 2048), (3072, 3072), (1024, 4096))
WAYS: dict[str, tuple[str, Method]] = {
    "extension": ("native", "auto"),
    "svd": ("reference", "svd"),
    "reference": ("reference", "band"),
}
"""Way -> backend of the operations, and method."""


def main() -> int:
    """Measure every shape and write the file."""
    set_threads(1)
    rows = [row(*shape, rounds=3 if max(shape) <= 1024 else 1) for shape in SHAPES]
    results = {"schema": SCHEMA, "size": "full", "kind": "without-extension", "machine": machine_header(), "rows": rows}
    write_results(PATH, results)
    print(f"written: {PATH.name}, {len(rows)} rows")
    return 0


def row(rows: int, columns: int, rounds: int) -> dict[str, Any]:
    """Median processor seconds of each way on a float32 matrix of noise; all must give the same sum of signal."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    sums = {}
    for _ in range(rounds):
        for way, (backend, method) in WAYS.items():
            start = time.process_time()
            with use_backend(backend):
                sums[way] = sf.spectrum(weight, method=method).signal_sum
            seconds[way].append(time.process_time() - start)
    least, most = min(sums.values()), max(sums.values())
    assert most - least <= 2e-4 * most, sums
    return {"name": f"{rows} x {columns}", "rounds": rounds} | {way: median(times) for way, times in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
