"""Rows of one section: correctness before every time, floors beside every row, a file written after each.

``bench/gpu.sh`` runs this after the GPU tests. ``--rehearse`` (with ``TRITON_INTERPRET=1``) walks through every row at
toy sizes on the CPU, to prove the script and not the kernels' speed; it writes nothing.

A row: median, inter-quartile range, minimum and maximum over rounds, each timed by a pair of CUDA events; operands are
random and rotate so that they leave the L2 between rounds. ``bytes`` are those that must move, ``flops`` those of the
algorithm (a multiply-add is two), the floor is the larger of bytes at the measured copy rate and flops at the measured
bf16 matrix rate or the data sheet's vector rate. Rows that matter most come first: the budget may end.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from bench.gpu.band import band_builds
from bench.gpu.extent import extent_builds
from bench.gpu.gram import gram_builds, tuning_builds
from bench.gpu.spectra import FIRST, REST, graph_builds, spectrum_builds
from bench.gpu.sturm import shift_builds, sturm_builds
from bench.gpu.timing import DEVICE, Build, WrongResultError, measure, measure_rates
from bench.machine import machine_header
from bench.results_file import SCHEMA, format_table, write_results
from spectrum_fast.measure.ops.band.device_graph import RECORDINGS
from spectrum_fast.measure.ops.triton_support import kernel_errors


def kernel_rows(rehearse: bool, bf16: float) -> Iterator[Build]:
    """Each kernel by itself."""
    return chain(
        gram_builds(["bfloat16"], rehearse, bf16),
        sturm_builds([torch.float64], rehearse),
        extent_builds(rehearse),
        shift_builds(rehearse),
        gram_builds(["fp8", "float32"], rehearse, bf16),
        tuning_builds(rehearse, bf16),
        sturm_builds([torch.float32], rehearse),
    )


def eigen_rows(rehearse: bool, bf16: float) -> Iterator[Build]:
    """Whole spectra, and the reduction against a full eigensolver."""
    return chain(
        spectrum_builds(FIRST, rehearse, bf16),
        band_builds([(1, 8192), (64, 2048)], [32], rehearse, bf16),
        graph_builds(rehearse, bf16),
        band_builds([(1, 8192)], [64], rehearse, bf16),
        spectrum_builds(REST, rehearse, bf16),
        band_builds([(1, 1024), (1, 4096)], [32, 64], rehearse, bf16),
        band_builds([(1, 16384)], [32, 64], rehearse, bf16),
        band_builds([(64, 2048)], [64], rehearse, bf16),
    )


SECTIONS: dict[str, Callable[[bool, float], Iterator[Build]]] = {"kernels": kernel_rows, "eigen": eigen_rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows of a section within the budget; exit code 1 if a result was wrong or a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds after which no further row begins")
    parser.add_argument("--select", default="", help="only rows whose name contains this")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes; writes nothing")
    options = parser.parse_args(arguments)
    if DEVICE != "cuda" and not options.rehearse:
        print("bench.gpu: no CUDA device; nothing measured", file=sys.stderr)
        return 2
    end = time.monotonic() + options.budget
    rates = measure_rates(64 if options.rehearse else 8192)
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    skipped: list[str] = []
    machine = machine_header()

    def report() -> str:
        """The table so far, written too: a row that outlasts the caller's patience takes nothing with it."""
        results = {
            "schema": SCHEMA,
            "size": "rehearsal" if options.rehearse else "full",
            "machine": machine,
            "rates": rates,
            "rows": rows,
            "failures": failures,
            "skipped": skipped,
        }
        table = format_table(results) if rows else "no rows"
        text = "\n".join([table, *(f"FAILED  {line}" for line in failures), *(f"skipped {line}" for line in skipped)])
        if not options.rehearse:
            write_results(options.out / f"gpu-{options.section}.json", results)
            (options.out / f"gpu-{options.section}.txt").write_text(f"{machine['gpu']}\n{text}\n", encoding="utf-8")
        return text

    for build in SECTIONS[options.section](options.rehearse, rates["bf16_flops_per_second"]):
        if options.select not in build.name:
            continue
        if time.monotonic() > end:
            skipped.append(f"{build.name}: budget of {options.budget:.0f} s spent")
            continue
        began = time.monotonic()
        try:
            rows.append(measure(build.make(), rates, 3 if options.rehearse else 21))
            milliseconds = rows[-1]["median_seconds"] * 1e3
            print(f"{build.name}: {milliseconds:.3f} ms ({time.monotonic() - began:.1f} s)", file=sys.stderr)
        except (WrongResultError, ValueError, *kernel_errors()) as error:  # one row must not take the others with it
            failures.append(f"{build.name}: {type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc(limit=4)
        RECORDINGS.forget()
        report()
    print(report())
    if options.rehearse:
        print("\nREHEARSAL: the times above mean nothing")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
