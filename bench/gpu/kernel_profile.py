"""Where the time of a batch goes, kernel by kernel: a single wide matrix, and a batch of experts, by torch's profiler.

``--once`` runs one batch of each and measures nothing: for a profiler that is put around this process.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

from bench.gpu.record import Record
from bench.gpu.timing import DEVICE
from bench.gpu.weights import trained_like
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra

BATCHES = ((1, 8192, 28672), (64, 2048, 7168))
MOST = 20
"""Kernels named in a row, those that take longest."""


def profile_row(name: str, weights: torch.Tensor) -> dict[str, Any]:
    """One batch, whose kernels are compiled and loaded already."""
    criterion = find_criterion("spectrum")
    compute_spectra(weights, criterion)
    has_gpu = ProfilerActivity.CUDA in supported_activities()  # an emulated one has no kernels
    with profile(activities=[ProfilerActivity.CUDA if has_gpu else ProfilerActivity.CPU]) as profiler:
        compute_spectra(weights, criterion)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    on_gpu = [event for event in profiler.key_averages() if str(event.device_type).endswith("CUDA")]
    found = sorted(on_gpu, key=lambda event: -event.self_device_time_total)
    kernels = [[one.key[:60], one.count, round(one.self_device_time_total / 1e3, 4)] for one in found[:MOST]]
    seconds = sum(one.self_device_time_total for one in found) / 1e6
    launches = sum(one.count for one in found)
    info = {"launches": launches, "matrices": len(weights), "kernels_calls_milliseconds": kernels}
    return {"name": name, "group": "profile", "median_seconds": seconds, "rounds": 1, "info": info}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description="Kernels of a batch, by the time they take.")
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--budget", type=float, help="is not asked: this takes seconds")
    parser.add_argument("--once", action="store_true", help="run and measure nothing")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device")
    options = parser.parse_args(arguments)
    record = None if options.once else Record(options.out, rehearse=options.rehearse)
    for count, m, n in BATCHES:
        name = f"profile[{f'{count}x' if count > 1 else ''}{m}x{n}]"
        weights = trained_like(min(count, 2), 200, 230) if options.rehearse else trained_like(count, m, n)
        with use_backend("auto" if DEVICE == "cuda" else MODEL):
            if record is None:
                compute_spectra(weights, find_criterion("spectrum"))
                continue
            record.add(row := profile_row(name, weights))
        print(f"{name}: {row['median_seconds'] * 1e3:.2f} ms, {row['info']['launches']} launches", flush=True)
        for kernel, calls, milliseconds in row["info"]["kernels_calls_milliseconds"]:
            print(f"  {milliseconds:10.3f} ms {calls:6d} x {kernel}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
