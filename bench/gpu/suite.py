"""Rows of one section: correctness before every time, floors beside every row, a file written after each.

``--rehearse`` walks through every row at toy sizes on any device, to prove the script and not the kernels' speed.

A row: median, inter-quartile range, minimum and maximum over rounds, each timed by a pair of CUDA events; operands are
random and rotate so that they leave the L2 between rounds. ``bytes`` are those that must move, ``flops`` those of the
algorithm (a multiply-add is two), the floor is the larger of bytes at the measured copy rate and flops at the measured
bf16 matrix rate or the data sheet's vector rate. Rows that matter most come first: the budget may end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch

from bench.gpu.band import band_builds, sweep_builds
from bench.gpu.extent import extent_builds
from bench.gpu.gram import gram_builds, tuning_builds
from bench.gpu.product import product_builds
from bench.gpu.record import Record
from bench.gpu.spectra import FIRST, REST, graph_builds, spectrum_builds
from bench.gpu.sturm import shift_builds, sturm_builds
from bench.gpu.timing import DEVICE, Build, WrongResultError, measure, measure_rates
from spectrum_fast.measure.ops.device_graph import RECORDINGS
from spectrum_fast.measure.ops.triton_support import kernel_errors

Rows = Callable[[Record, bool, float], Iterator[Build]]
SECTIONS: dict[str, Rows] = {
    "rates": lambda *_: iter(()),
    "gram": lambda _, rehearse, bf16: chain(
        gram_builds(["bfloat16"], rehearse, bf16), tuning_builds(rehearse, bf16), gram_builds(["fp8"], rehearse, bf16)
    ),
    "graphs": lambda record, rehearse, bf16: chain(
        spectrum_builds(FIRST[:3], record, rehearse, bf16),
        graph_builds(record, rehearse, bf16),
        band_builds([(1, 8192), (64, 2048)], [32], rehearse, bf16),
    ),
    "variants": lambda _, rehearse, bf16: chain(
        sweep_builds(rehearse, bf16),
        shift_builds(rehearse),
        sturm_builds([torch.float64], rehearse),
        band_builds([(1, 8192), (64, 2048)], [64], rehearse, bf16),
    ),
    "rest": lambda record, rehearse, bf16: chain(
        spectrum_builds([*FIRST[3:], *REST], record, rehearse, bf16),
        product_builds(rehearse),
        extent_builds(rehearse),
        gram_builds(["float32"], rehearse, bf16),
        band_builds([(1, 1024), (1, 4096), (1, 16384)], [32, 64], rehearse, bf16),
        sturm_builds([torch.float32], rehearse),
    ),
}
"""What a step of a call measures, the rows that matter most first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows of a section within the budget; exit code 1 if a result was wrong or a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--budget", type=float, default=150.0, help="seconds after which no further row begins")
    parser.add_argument("--select", default="", help="only rows whose name contains this")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes")
    options = parser.parse_args(arguments)
    if DEVICE != "cuda" and not options.rehearse:
        print("bench.gpu: no CUDA device; nothing measured", file=sys.stderr)
        return 2
    end = time.monotonic() + options.budget
    record = Record(options.out, rehearse=options.rehearse)
    begin, failed = len(record.rows), False
    rates = record.known("rates", lambda: measure_rates(64 if options.rehearse else 8192))
    for build in SECTIONS[options.section](record, options.rehearse, rates["bf16_flops_per_second"]):
        if options.select not in build.name:
            continue
        if time.monotonic() > end:
            record.note("skipped", f"{build.name}: budget of {options.budget:.0f} s spent")
            continue
        began = time.monotonic()
        try:
            row = measure(build.make(), rates, 3 if options.rehearse else 21)
            record.add(row)
            print(f"{build.name}: {row['median_seconds'] * 1e3:.3f} ms ({time.monotonic() - began:.1f} s)", flush=True)
        except (WrongResultError, ValueError, *kernel_errors()) as error:  # one row must not take the others with it
            failed = True
            record.note("failures", f"{build.name}: {type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc(limit=4)
        RECORDINGS.forget()
    print(json.dumps(rates))
    print(record.text(begin))
    if options.rehearse:
        print("\nREHEARSAL: the times above mean nothing")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
