"""What the engine should cost on a GPU: bytes, flops, launches and chains of each stage, and the times they predict.

``python -m bench.gpu.model`` prints single matrices, batches and whole models, what every change that was made brought
and what every change that was weighed would bring. **Every time here is predicted, none is measured.**

A stage takes as long as the largest of what it moves, through memory or through the cache, multiplies and computes in
float64, each at its own rate; after that come its chain (steps that wait for each other while little else runs) and the
gaps between its launches. The host launches ahead of the device: between two waits a batch takes the longer of the two.
The floor has neither chains nor gaps nor a host nor a cache, and tensor cores at their full rate.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.gpu.models import MODELS, Shape, together
from spectrum_fast.measure.ops.band.workspace import FAN, ROWS, panels_together
from spectrum_fast.measure.ops.device_graph import LIMIT_BYTES
from spectrum_fast.measure.spectra.binning import BULK_BINS, TAIL_BINS
from spectrum_fast.measure.spectra.methods.band import half_width
from spectrum_fast.measure.spectra.probes import IN_MEMORY
from spectrum_fast.measure.spectra.schedule import FIXED, GEOMETRIC_POINTS, LOW_POINTS
from spectrum_fast.scanning.scorers import LEAST_BATCHES

EPS = 2.0**-23
RANKS = 8
"""Of the order statistics: the ends, and two around each quartile."""
POINTS = 9
"""Around the threshold, at the ends of the integrals and around the edge of noise."""
TILE = 128
"""Side of a tile of the update of several panels."""
WIDENED = 4 << 20
"""Numbers that the torch form of a product widens at a time."""


@dataclass(frozen=True)
class Device:
    """Rates of a GPU: bytes and products as measured there, float64 from its data sheet, the rest estimates."""

    name: str
    bytes_per_second: float
    cache_bytes_per_second: float = 5.7e12
    """Of the L2, to all multiprocessors."""
    one_bytes_per_second: float = 100e9
    """To one multiprocessor that reads alone."""
    product_flops: float = 790e12
    double_flops: float = 34e12
    hertz: float = 1.75e9
    multiprocessors: int = 132
    gap_seconds: float = 3e-6
    """From the end of a kernel to the start of one that waits for it."""
    launch_seconds: float = 14e-6
    """Of the host, for a launch through Triton."""
    operation_seconds: float = 5e-6
    """Of the host, for an operation of torch's."""


DEVICES = (Device("H100", 3.0e12), Device("H200", 4.3e12))


@dataclass(frozen=True)
class Engine:
    """What is open to choice, as it stands.

    Attributes:
        batch_bytes: of a batch, workspace included; a fifth of the memory of an H100.
        stacked: a batch lies in one memory, so that a step is one launch and nothing is copied together.
        probes_widen: numbers for a product with a few vectors are widened through memory, by torch operations.
        panel_launches: of one panel of the reduction.
        panel_operations: of torch, for vectors that are taken along.
        keeps_vectors: Householder vectors are left where the matrix was: six operations a panel, half of them views.
        small_step_cycles: of a step of its b x b work.
        deferred: panels whose updates of the trailing matrix are applied together; None for what the reduction does.
        both_ends: counts and log-determinants come from both ends of a band, joined in its middle.
        slice_operations: of torch, around a round of counts.
        graphs: launches of reduction and slices of small batches cost the host nothing.
        nodes: log-determinants of a matrix at the accuracy that the default tolerance asks, of 192 places (emulated
            device).
        beside: two batches at once, on streams of their own: slices of one beside products of the next, at best.
    """

    batch_bytes: int = 16 << 30
    stacked: bool = True
    probes_widen: bool = False
    panel_launches: int = 8
    panel_operations: int = 0
    keeps_vectors: bool = True
    small_step_cycles: int = 450
    deferred: int | None = None
    both_ends: bool = False
    slice_operations: int = 50
    graphs: bool = True
    nodes: int = 44
    beside: bool = True


@dataclass(frozen=True)
class Stage:
    """What one stage of one batch takes.

    Attributes:
        name: of the stage.
        bytes: moved through the device's memory.
        cached: moved through its cache.
        products: flops of the tensor cores.
        share: of their rate that the other instructions of the loop leave them.
        doubles: flops in float64.
        chain_seconds: of steps that wait for each other.
        launches: of kernels.
        operations: of torch; every second one is a kernel too.
        recorded: all of that is in a graph.
    """

    name: str
    bytes: float = 0.0
    cached: float = 0.0
    products: float = 0.0
    share: float = 1.0
    doubles: float = 0.0
    chain_seconds: float = 0.0
    launches: int = 0
    operations: int = 0
    recorded: bool = False

    def floor(self, device: Device) -> float:
        """No device with these rates does it in less."""
        return replace(self, cached=0.0, share=1.0, chain_seconds=0.0, launches=0, operations=0).seconds(device)

    def seconds(self, device: Device) -> float:
        """Of the device."""
        by_products = self.products / device.product_flops / self.share
        moved = max(self.bytes / device.bytes_per_second, self.cached / device.cache_bytes_per_second)
        work = max(moved, by_products, self.doubles / device.double_flops)
        return work + self.chain_seconds + (self.launches + self.operations / 2) * device.gap_seconds

    def host_seconds(self, device: Device) -> float:
        """Of the host."""
        launching = self.launches * device.launch_seconds + self.operations * device.operation_seconds
        return 0.0 if self.recorded else launching


WAITS = (("extent",), ("gram",), ("probes", "sweeps", "updates", "panels", "slices"))
"""Stages between two waits of the host."""


def stages(shape: Shape, count: int, itemsize: int, device: Device, engine: Engine) -> list[Stage]:
    """Of a batch of ``count`` matrices of numbers of 1 (FP8 codes), 2 or 4 bytes."""
    short, long = sorted(shape)
    entries, squares = float(count) * short * long, float(count) * short * short
    share, products = {1: (0.56, 1), 2: (0.82, 1), 4: (0.62, 3)}[itemsize]  # by instructions of the compiled loops
    readings, calls = (1, 1) if engine.stacked else (4, count)  # read; and read, written, read for the product
    extent = Stage("extent", bytes=readings * itemsize * entries, launches=calls, operations=12 * calls)
    gram = Stage(
        "gram",
        bytes=itemsize * entries + 3 * 4 * squares,  # written; read for its norm, and for the scale of its halves
        products=products * (short + 1.0) * entries,
        share=share,
        launches=3,
        operations=20,
    )
    return [
        extent,
        gram,
        _probes(entries, squares, count, itemsize, device, engine),
        *_reduction(short, count, device, engine),
        _slices(short, count, device, engine),
    ]


def _probes(entries: float, squares: float, count: int, itemsize: int, device: Device, engine: Engine) -> Stage:
    plan = IN_MEMORY
    doubles = 2.0 * plan.powers * plan.vectors * (2 * entries + squares)
    around = 20 * plan.powers + 20
    if engine.probes_widen:
        moved = plan.powers * (2 * (itemsize + 16) * entries + 20 * squares)
        pieces = 2 * count * math.ceil(entries / count / WIDENED) + math.ceil(squares / WIDENED)
        return Stage("probes", bytes=moved, doubles=doubles, operations=3 * plan.powers * pieces + around)
    # Numbers reach the float64 units by way of shared memory: 16 bytes each, 128 a cycle and multiprocessor.
    least = 16 / 128 / device.multiprocessors / device.hertz * device.bytes_per_second
    moved = plan.powers * (2 * max(itemsize, least) * entries + max(4.0, least) * squares)
    return Stage("probes", bytes=moved, doubles=doubles, launches=3 * plan.powers, operations=around)


def _reduction(size: int, count: int, device: Device, engine: Engine) -> list[Stage]:
    """Bytes of the cache by tiles: 128 x 16 of the matrix and 16 rows of halves; 128 x 128 and twice 128 rows of them.

    A tile of an update has a multiprocessor to itself: its operands come before the matrix.
    """
    b, recorded = half_width(size, on_gpu=True), _is_recorded(size, count, engine)
    group = panels_together(size) if engine.deferred is None else engine.deferred
    rows = [size - (index + 1) * b for index in range(max(0, math.ceil((size - b - 1) / b)))]
    area, tall = float(count) * sum(row * row for row in rows), float(count) * sum(rows) * b
    halves = 4 * b / TILE  # bytes a number of a tile, of two halves of one operand
    if group == 1:
        sweeps = Stage("sweeps", bytes=8 * area, cached=8 * area + 3 * halves * area, products=18 * area * b)
        updates = []
    else:
        sweeps = Stage("sweeps", bytes=4 * area, cached=4 * area + halves * area, products=6 * area * b)
        ends = float(count) * sum(row * row for row in rows[group - 1 :: group])
        operands = 2 * group * halves * ends
        updates = [
            Stage(
                "updates",
                bytes=6 * ends,
                products=6 * group * ends * b,
                share=0.7,
                chain_seconds=operands / device.cache_bytes_per_second,
                launches=len(rows) // group,
                recorded=recorded,
            )
        ]
    sweeps = replace(sweeps, share=0.7, launches=len(rows), recorded=recorded)
    waiting = 1 if group == 1 else (group - 1) / 2
    products = 2 * waiting if group == 1 else 6 * waiting  # with V and Z of panels that wait
    alone = math.ceil(count / device.multiprocessors)
    small = len(rows) * 2 * b * engine.small_step_cycles * alone / device.hertz
    chunks = sum(rows) / len(rows) / ROWS if rows else 0
    sums = 4 if group == 1 else 4 + 2 * waiting  # blocks of b x b that whoever comes last adds up
    last = len(rows) * alone * sums * (FAN + chunks / FAN) * 8 * b * b / device.one_bytes_per_second
    panels = Stage(
        "panels",
        bytes=8 * (10 + products) * tall + 12 * tall * engine.keeps_vectors,
        doubles=2 * (9 + products) * tall * b,
        chain_seconds=small + (last if engine.panel_launches < 12 else 0.0),
        launches=len(rows) * (engine.panel_launches - 1),
        operations=70
        + 20 * (1 if group == 1 else len(rows) % group)
        + len(rows) * (engine.panel_operations + 6 * engine.keeps_vectors),
        recorded=recorded,
    )
    return [sweeps, *updates, panels]


def _is_recorded(size: int, count: int, engine: Engine) -> bool:
    return engine.graphs and 4 * count * size * size <= LIMIT_BYTES


def rounds_of_counts(count: int) -> list[int]:
    """Shifts of each matrix of a batch, round by round."""
    interior = FIXED.interior_points(count * RANKS)
    narrowing = [interior * RANKS] * FIXED.rounds(count, interior, EPS)
    grid = FIXED.linear_points(count) + GEOMETRIC_POINTS + LOW_POINTS
    return [grid, *narrowing, POINTS + BULK_BINS + TAIL_BINS - 1]


def _slices(size: int, count: int, device: Device, engine: Engine) -> Stage:
    """Cycles: a warp's instructions for a step, float64 ones twice, and how long it waits where it is alone."""
    b = half_width(size, on_gpu=True)
    sides, steps = (2, size / 2 + b) if engine.both_ends else (1, size)

    def seconds(shifts: int, cycles: int, wait: int) -> float:
        warps = math.ceil(sides * count * shifts / (4 * device.multiprocessors))
        return steps * max(wait, warps * cycles) / device.hertz

    rounds = rounds_of_counts(count)
    doubles = float(size) * b * b * count * (sum(rounds) + 4 * engine.nodes)
    taken = sum(seconds(shifts, 224, 455) for shifts in rounds) + seconds(engine.nodes, 544, 1050)
    return Stage(
        "slices",
        bytes=8.0 * count * size * (b + 2) * (len(rounds) + 9),
        doubles=doubles,
        chain_seconds=max(0.0, taken - doubles / device.double_flops),
        launches=sides * (len(rounds) + 1),
        operations=(len(rounds) + 1) * engine.slice_operations + 800,
        recorded=_is_recorded(size, count, engine),
    )


def batch_seconds(parts: Sequence[Stage], device: Device, engine: Engine) -> float:
    """Predicted for one batch."""

    def between_waits(names: Sequence[str]) -> float:
        some = [part for part in parts if part.name in names]
        on_device = [part.seconds(device) for part in some]
        slices = sum(one for part, one in zip(some, on_device, strict=True) if part.name == "slices" and engine.beside)
        by_device = max(sum(on_device) - slices, slices)
        return max(by_device, sum(part.host_seconds(device) for part in some))

    return sum(between_waits(names) for names in WAITS)


def model_seconds(name: str, device: Device, engine: Engine) -> tuple[float, float]:
    """Predicted and floor for all matrices of one of ``bench.gpu.models.MODELS``."""
    layers, shapes, fp8 = MODELS[name]
    predicted = floor = 0.0
    for shape, each in shapes.items():
        itemsize, wanted = 1 if fp8 else 2, layers * each
        count = min(together(shape, engine.batch_bytes, fp8=fp8), -(-wanted // LEAST_BATCHES))
        parts = stages(shape, count, itemsize, device, engine)
        predicted += wanted / count * batch_seconds(parts, device, engine)
        floor += wanted / count * sum(part.floor(device) for part in parts)
    return predicted, floor


BEFORE = Engine(
    batch_bytes=4 << 30,
    stacked=False,
    probes_widen=True,
    panel_launches=12,
    panel_operations=8,
    keeps_vectors=False,
    small_step_cycles=700,
    deferred=1,
    graphs=False,
    nodes=117,
    beside=False,
)
Changes = dict[str, dict[str, Any]]
MADE: Changes = {
    "batches of a fifth of the memory": {"batch_bytes": 16 << 30},
    "batches in one memory": {"stacked": True},
    "probes widened in registers": {"probes_widen": False},
    "two batches at once, at best": {"beside": True},
    "8 launches a panel": {"panel_launches": 8, "panel_operations": 0},
    "one reciprocal a step": {"small_step_cycles": 450},
    "updates of several panels together": {"deferred": None},
    "reduction and slices in graphs": {"graphs": True},
    "Householder vectors kept": {"keeps_vectors": True},
    "sums along vertical lines": {"nodes": 44},
}
WEIGHED: Changes = {
    "batches of 28 GiB": {"batch_bytes": 28 << 30},
    "updates of 2 panels together": {"deferred": 2},
    "updates of 4 panels together": {"deferred": 4},
    "updates of 8 panels together": {"deferred": 8},
    "shifts scaled by the kernel": {"slice_operations": 30},
    "b x b steps in half the cycles": {"small_step_cycles": 225},
    "counts from both ends": {"both_ends": True},
}
CASES: list[tuple[Shape, int, int]] = [
    ((8192, 28672), 1, 2),
    ((8192, 28672), 13, 2),
    ((2048, 7168), 64, 2),
    ((2048, 7168), 64, 1),
]
"""Shape, matrices and bytes of a number."""


def print_stages(device: Device, engine: Engine) -> None:
    """A table for each of CASES."""
    for shape, count, itemsize in CASES:
        parts = stages(shape, count, itemsize, device, engine)
        print(f"\n{count} of {shape[0]} x {shape[1]}, {itemsize} bytes a number, predicted on one {device.name}:")
        print("              GB   TFLOP  TFLOP64  launches  operations   ms: floor    chain   device     host")
        for part in parts:
            times = (part.floor(device), part.chain_seconds, part.seconds(device), part.host_seconds(device))
            print(
                f"{part.name:<8} {part.bytes / 1e9:7.1f} {part.products / 1e12:7.2f} {part.doubles / 1e12:8.3f}"
                f" {part.launches:9d} {part.operations:11d}   " + "".join(f"{1e3 * time:9.2f}" for time in times)
            )
        total = batch_seconds(parts, device, replace(engine, beside=engine.beside and count > 1))
        print(f"predicted {1e3 * total:.1f} ms, {1e3 * total / count:.2f} ms each")


def print_changes(device: Device) -> None:
    """What each change brings: whole models, a single matrix and one of a batch."""
    names = list(MODELS)[:2]
    (alone, one, _), (expert, many, _) = CASES[0], CASES[2]
    heads = (*names, f"{one} of {alone[0]} x {alone[1]}", f"one of {many} of {expert[0]} x {expert[1]}")
    print(f"\npredicted on one {device.name}: {', '.join(heads)}")
    lines: list[tuple[str, Engine]] = [("before", BEFORE)]
    for change, fields in MADE.items():
        lines.append((f"and {change}", replace(lines[-1][1], **fields)))
    lines.append(("as it stands", Engine()))
    lines += [(f"with {change}", replace(Engine(), **fields)) for change, fields in WEIGHED.items()]
    for line, engine in lines:
        models = "".join(f"{model_seconds(name, device, engine)[0]:8.2f} s" for name in names)
        single, batch = (stages(shape, count, size, device, engine) for shape, count, size in (CASES[0], CASES[2]))
        each = batch_seconds(single, device, replace(engine, beside=False)), batch_seconds(batch, device, engine) / many
        print(f"{line:<38} {models} {1e3 * each[0]:8.1f} ms {1e3 * each[1]:7.2f} ms")
    print(f"{'floor':<38} " + "".join(f"{model_seconds(name, device, Engine())[1]:8.2f} s" for name in names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description="Predicted times of the engine on a GPU.")
    parser.add_argument("--device", choices=[device.name for device in DEVICES], default="H200")
    wanted = parser.parse_args(arguments).device
    device = next(device for device in DEVICES if device.name == wanted)
    print_stages(device, Engine())
    print_changes(device)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
