"""How near reading and scoring together come to the longer of the two, whatever their ratio.

``python -m bench.overlap`` writes a checkpoint of Llama-3-8B shapes, a quarter as wide (0.9 GB), and reads it from the
page cache through the pipeline of a GPU: into the ring, hashed, from there to its place in a batch, batches scored by
their own thread. The device is one that sleeps for a given time a matrix, so that the ratio of computing to reading can
be chosen; copies to it are copies in memory, and cost the processors what a GPU does by itself. Every round measures
the reading alone anew, and is held to that: a machine that is busy with other things is so for both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.floors import read_seconds
from bench.machine import machine_header
from bench.make_checkpoint import write_checkpoint
from bench.results_file import SCHEMA, write_results
from bench.streaming import ROOT, SETTINGS, describe, make_row
from spectrum_fast.errors import TensorError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions
from spectrum_fast.scanning import scorers
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.scanning.scoring import score_weights

RATIOS = (0.25, 0.8, 1.0, 1.25, 4.0)
"""Of computing to reading."""


def overlap_rows(plans: Sequence[WeightPlan], rounds: int) -> list[dict[str, Any]]:
    """Reading alone, and with each ratio of computing to it."""
    run(plans, 0.0)  # touches the ring's pages
    seconds: dict[float, list[float]] = {ratio: [] for ratio in (0.0, *RATIOS)}
    to_bound: dict[float, list[float]] = {ratio: [] for ratio in seconds}
    for _ in range(rounds):
        for ratio in RATIOS:
            read = run(plans, 0.0)
            seconds[0.0].append(read)
            seconds[ratio].append(run(plans, ratio * read))
            to_bound[ratio].append(seconds[ratio][-1] / max(read, ratio * read))
    rate = sum(plan.nbytes for plan in plans) / statistics.median(seconds[0.0]) / 1e9
    rows = [make_row("overlap[reading alone]", seconds[0.0], {"gigabytes_per_second": rate})]
    for ratio in RATIOS:
        info = {"ratio_to_bound": statistics.median(to_bound[ratio]), "ratios_to_bound": to_bound[ratio]}
        rows.append(make_row(f"overlap[computing {ratio:g} x reading]", seconds[ratio], info))
    return rows


def run(plans: Sequence[WeightPlan], compute_seconds: float) -> float:
    """Seconds of one pass over the weights, of which the device takes so many."""

    def sleep(weights: Sequence[object], *_: object, **__: object) -> list[Exception]:
        time.sleep(compute_seconds * len(weights) / len(plans))
        return [TensorError("a device that sleeps scores nothing")] * len(weights)

    kept, scorers.compute_spectra = scorers.compute_spectra, sleep
    try:
        scorer = scorers.Together(ScanOptions(device="cpu"), plans=plans)
        options = StreamOptions(buffer_bytes=1 << 30, threads=os.cpu_count(), digests=True, poison=False)
        began = time.perf_counter()
        score_weights(plans, scorer, options, lambda _: None)
        return time.perf_counter() - began
    finally:
        scorers.compute_spectra = kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Measure how reading and scoring overlap.")
    parser.add_argument("--layers", type=int, default=32, help="of the checkpoint")
    parser.add_argument("--scale", type=int, default=4, help="divides every side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", help="name of a result file to write")
    options = parser.parse_args(arguments)
    settings = SETTINGS["full"] | {"layers": options.layers, "scale": options.scale}
    with tempfile.TemporaryDirectory() as folder:
        written = write_checkpoint(Path(folder) / "model", **settings)
        read_seconds(written.files, cold=False)
        rows = overlap_rows(plan_scan(open_checkpoint(written.path)).weights, options.rounds)
    for row in rows:
        print(describe(row))
    if options.name:
        results = {"schema": SCHEMA, "size": "full", "machine": machine_header(), "rows": rows}
        write_results(ROOT / "bench" / "results" / f"{options.name}.json", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
