"""Whole spectra against every singular value by torch on the same GPU, once each, each in a process with a limit.

The reference scanner takes float32 ``torch.linalg.svdvals``, WeightWatcher float64 (bench/peers.py). A peer that is not
done within the limit is recorded as such, and the ratio is then a lower bound.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu.timing import DEVICE, time_calls
from bench.gpu.weights import trained_like
from bench.machine import machine_header
from bench.results_file import SCHEMA, format_table, write_results
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra

SHAPES = [(2048, 7168, "float32"), (8192, 28672, "float32"), (2048, 7168, "float64"), (1024, 8192, "float64")]
SHAPES += [(1024, 8192, "float32"), (8192, 8192, "float32"), (7168, 16384, "float32"), (18432, 7168, "float32")]
SHAPES += [(24576, 1536, "float32"), (32768, 512, "float32"), (1536, 7168, "float32"), (576, 7168, "float32")]

_PEER = """
import sys, time, torch
rows, columns, dtype, device = int(sys.argv[1]), int(sys.argv[2]), getattr(torch, sys.argv[3]), sys.argv[4]
weight = (torch.randn(rows, columns, device=device) * 0.02).to(dtype)
torch.linalg.svdvals(weight[:200, :300]).sum().item()  # the library is loaded
start = time.perf_counter()
torch.linalg.svdvals(weight).sum().item()
print(time.perf_counter() - start)
"""


def peer_seconds(rows: int, columns: int, dtype: str, limit: float) -> float | None:
    """Seconds of ``torch.linalg.svdvals`` in a process of its own; None if it is not done within the limit."""
    command = [sys.executable, "-c", _PEER, str(rows), str(columns), dtype, DEVICE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout.split()[-1])


def our_seconds(rows: int, columns: int) -> list[float]:
    """Three rounds of the engine of a scan on one matrix."""
    weights = trained_like(1, rows, columns)
    criterion = find_criterion("spectrum")
    return time_calls([lambda: compute_spectra(weights, criterion)], 3)


def run(rows: int, columns: int, dtype: str, limit: float, *, rehearse: bool) -> dict[str, Any]:
    """One row; ours is timed first, so that both never share the device."""
    size = (200, 230) if rehearse else (rows, columns)
    ours = our_seconds(*size)
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    peer = peer_seconds(*size, dtype, limit)
    median = statistics.median(ours)
    info = {
        "peer": f"torch.linalg.svdvals, {dtype}, once",
        "peer_seconds": peer if peer is not None else limit,
        "peer_was_done": peer is not None,
        "ratio_to_peer": (peer if peer is not None else limit) / median,
    }
    name = "spectrum-vs-weightwatcher" if dtype == "float64" else "spectrum-vs-svdvals"
    return {
        "name": f"{name}[{rows}x{columns}]",
        "group": "peer",
        "median_seconds": median,
        "iqr_seconds": max(ours) - min(ours),
        "min_seconds": min(ours),
        "max_seconds": max(ours),
        "rounds": len(ours),
        "info": info,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Spectra against svdvals on a GPU.")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--budget", type=float, default=100.0, help="seconds in all")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds of one peer, its start included")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device; writes nothing")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.budget
    rows: list[dict[str, Any]] = []
    for m, n, dtype in SHAPES[:3] if options.rehearse else SHAPES:
        left = end - time.monotonic()
        if left < 15:
            break
        rows.append(run(m, n, dtype, min(options.limit, left - 5), rehearse=options.rehearse))
        print(f"{rows[-1]['name']}: {rows[-1]['info']}", flush=True)
        if not options.rehearse:
            results = {"schema": SCHEMA, "machine": machine_header(), "size": "full", "rows": rows}
            write_results(options.out / "gpu-peers.json", results)
    print(format_table({"rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
