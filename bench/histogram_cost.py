"""What the histogram of singular values costs a matrix: the engine with its sixty-odd shifts and without them.

    python -m bench.histogram_cost [--rounds N] [--out FILE]

Both ways are timed in turn on the same weights, so that a busy machine slows both; their sums must agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

import spectrum_fast as sf
from bench.machine import machine_header
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import OrderStatistics

SHAPES = ((1024, 1024), (1024, 4096), (2048, 2048), (4096, 4096))
_TARGET = "spectrum_fast.measure.spectra.functionals.empty_histogram"


def _one_bin(statistics_: OrderStatistics) -> Histogram:
    """A histogram without inner edges: not one shift more than the score needs."""
    return Histogram(0.0, statistics_.s_max, statistics_.s_max, 1, (0,))


def _seconds(work: Callable[[], sf.Spectrum]) -> tuple[float, sf.Spectrum]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def measure(rows: int, columns: int, rounds: int) -> dict[str, object]:
    """Median seconds with and without, and the median of the rounds' ratios."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(rows, columns, generator=generator) / rows**0.5).to(torch.bfloat16)
    sf.spectrum(weight)
    with_, without, ratios = [], [], []
    for _ in range(rounds):
        full_seconds, full = _seconds(lambda: sf.spectrum(weight))
        with mock.patch(_TARGET, _one_bin):
            bare_seconds, bare = _seconds(lambda: sf.spectrum(weight))
        assert full.n_signal == bare.n_signal
        assert abs(full.signal_sum / bare.signal_sum - 1) <= 1e-4
        assert (len(full.histogram.counts), len(bare.histogram.counts)) == (64, 1)
        with_.append(full_seconds)
        without.append(bare_seconds)
        ratios.append(full_seconds / bare_seconds)
    return {
        "shape": [rows, columns],
        "with_seconds": round(statistics.median(with_), 6),
        "without_seconds": round(statistics.median(without), 6),
        "ratio": round(statistics.median(ratios), 4),
        "rounds": rounds,
    }


def main() -> None:
    """Measure, print, and write the file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [measure(*shape, options.rounds) for shape in SHAPES]
    text = json.dumps({"schema": 1, "machine": machine_header(), "rows": rows}, indent=1) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
