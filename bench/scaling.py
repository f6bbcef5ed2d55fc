"""What 1 to 64 cores take for a matrix, all of them for each or one matrix a core: a model, from what one core takes.

Usage: python -m bench.scaling [--bandwidth GB/s] [--region MICROSECONDS] [ROWSxCOLUMNS ...]    a table to stdout

Measured here: seconds of one matrix in the kernels and between them on one thread (:mod:`bench.stages`), and how fast
one thread copies memory. With K seconds in kernels, S between them, t cores and m bytes to and from memory:

- all cores, one matrix: ``max(K / t, m / W(t)) + S + P (1 + log2 t) r``; P parallel regions of the reduction, ten a
  panel, each of which costs ``r`` to begin and end on two cores, and one step of a tree more for twice as many.
- one matrix a core: ``max((K + S) / t, m / W(t), S)``: nobody waits for anybody, but one thread at a time is in Python,
  so that no matrix comes sooner than S after another (a process for every few cores has no such limit).

``m = 4 n³ / (3 b)`` bytes of the trailing matrix, read and written once a panel, where the Gram matrix does not stay in
the caches; ``W(t)`` is t times what one core copies, and no more than ``--bandwidth``.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch

from bench.floors import best_seconds
from bench.stages import stages_of
from spectrum_fast.measure.ops.dispatch import set_threads
from spectrum_fast.measure.spectra.methods.band import half_width

CORES = (1, 2, 8, 16, 32, 64)
SHAPES = ("512x1024", "1024x4096", "2048x2048", "4096x4096")
REGIONS_A_PANEL = 10
CACHE_BYTES = 1 << 20
"""What a core has for itself (Zen 4); its part of what several share is not counted on."""


@dataclass(frozen=True)
class Machine:
    """What the model knows of one: bytes a second that a core copies, and all cores; seconds of a parallel region."""

    core_bandwidth: float
    bandwidth: float
    region: float

    def memory_seconds(self, nbytes: float, cores: int) -> float:
        """Seconds to move so many bytes, all of these cores at it."""
        return nbytes / min(cores * self.core_bandwidth, self.bandwidth)


@dataclass(frozen=True)
class Costs:
    """Of one matrix on one core: seconds in kernels and between them, bytes to and from memory, panels."""

    kernels: float
    between: float
    nbytes: float
    panels: int

    def shared(self, machine: Machine, cores: int) -> float:
        """Seconds a matrix if all cores share out each."""
        waits = self.panels * REGIONS_A_PANEL * machine.region * math.log2(cores)
        return max(self.kernels / cores, machine.memory_seconds(self.nbytes, cores)) + self.between + waits

    def one_each(self, machine: Machine, cores: int) -> float:
        """Seconds a matrix if each core has one of its own."""
        busy = max((self.kernels + self.between) / cores, machine.memory_seconds(self.nbytes, cores))
        return max(busy, self.between)


def costs_of(shape: tuple[int, int], seconds: dict[str, float]) -> Costs:
    """From the stages of a matrix on one thread."""
    n = min(shape)
    b = half_width(n)
    moved = 4 * n**3 / (3 * b) if 2 * n * n > CACHE_BYTES else 0.0
    return Costs(seconds["all"] - seconds["between"], seconds["between"], moved, n // b)


def copy_bandwidth(nbytes: int = 1 << 28) -> float:
    """Bytes a second that one thread reads and writes."""
    source = torch.ones(nbytes, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * nbytes / best_seconds(lambda: target.copy_(source), 3)


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="A model of 1 to 64 cores.")
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="ROWSxCOLUMNS")
    parser.add_argument("--bandwidth", type=float, default=400.0, help="GB/s of all cores (12 channels of DDR5)")
    parser.add_argument("--region", type=float, default=2.0, help="microseconds of a parallel region of two cores")
    options = parser.parse_args()
    set_threads(1)
    machine = Machine(copy_bandwidth(), options.bandwidth * 1e9, options.region * 1e-6)
    print(f"one core copies {machine.core_bandwidth / 1e9:.0f} GB/s\n")
    print(f"| milliseconds a matrix | {' | '.join(map(str, CORES))} |\n|---|{'---|' * len(CORES)}")
    for text in options.shapes:
        rows, columns = map(int, text.split("x"))
        costs = costs_of((rows, columns), stages_of((rows, columns)))
        for name, way in (("all cores share it out", costs.shared), ("one a core", costs.one_each)):
            times = " | ".join(f"{1e3 * way(machine, cores):.3g}" for cores in CORES)
            print(f"| {rows} x {columns}, {name} | {times} |", flush=True)


if __name__ == "__main__":
    main()
