"""How long a fleet takes: a discrete model of workers that share weights, checked against real ones on this machine.

Usage: python -m bench.fleet --measure   (some minutes: rates and real parts in turns, to bench/results/fleet-*.json)
       python -m bench.fleet             (the section "How a fleet scales" of docs/long-scans.md from those results)

A worker opens each checkpoint that it has a part of, reads its chunks ahead and scores them one after the other: it is
busy for ``start + max(sum of scoring, bytes / rate of reading)``, and a source that all share has a rate of its own.
Chunks are those of the program (:func:`spectrum_fast.scanning.chunks.cut_chunks`), handed to whoever is free first as
Ray does it, or in shares that are fixed beforehand as parts are.

On the CPU rates are measured: processor seconds of a matrix of each shape, of a gigabyte, of a start. Real parts run
one after the other, since they share nothing, and their processor seconds are compared with the model's: a machine that
others use as well has no other clock. On a GPU everything is an assumption (:data:`GPU`), and what follows is called
predicted.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.families import Family, _decoder_shapes
from bench.machine import machine_header, machine_slug
from bench.make_checkpoint import write_checkpoint
from bench.results_file import SCHEMA, write_results
from spectrum_fast.read.checkpoint import TensorRef, open_checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, stream_weights
from spectrum_fast.scanning.chunks import cut_chunks
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part, share_of
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scanning.scoring import make_scorer, score_weights

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "long-scans.md"
BEGIN, END = "<!-- fleet, made by `python -m bench.fleet` -->", "<!-- end of fleet -->"

Shape = tuple[int, int]


@dataclass(frozen=True)
class Rates:
    """What a worker takes.

    Attributes:
        seconds_of: time to score a matrix of a shape.
        start_seconds: before its first weight of a checkpoint.
        bytes_per_second: that it can read.
        source_bytes_per_second: that all of them together can read.
    """

    seconds_of: Callable[[Shape], float]
    start_seconds: float
    bytes_per_second: float = float("inf")
    source_bytes_per_second: float = float("inf")


@dataclass(frozen=True)
class Predicted:
    """What a model run comes to: seconds until the last worker is done, bytes, and what binds."""

    seconds: float
    nbytes: int
    busy_seconds: float
    binds: str


@dataclass(frozen=True)
class Model:
    """A checkpoint of the table: its matrices by shape, and bytes of a value."""

    name: str
    shapes: Mapping[Shape, int]
    value_bytes: int = 2


def simulate(models: Iterable[tuple[int, Sequence[WeightPlan]]], workers: int, rates: Rates) -> Predicted:
    """Hand out the chunks of so many checkpoints of each kind, the largest first, to the worker that is free first."""
    rate = min(rates.bytes_per_second, rates.source_bytes_per_second / workers)
    tasks: list[tuple[float, float, int, int]] = []
    checkpoints = 0
    for count, plans in models:
        for chunk in cut_chunks(plans, workers, least_work=1e9):
            scoring, nbytes = sum(rates.seconds_of(_shape(plan)) for plan in chunk), sum(plan.nbytes for plan in chunk)
            tasks += [(scoring, nbytes / rate, checkpoints + number, nbytes) for number in range(count)]
        checkpoints += count
    tasks.sort(key=lambda task: -max(task[:2]))
    free = [(0.0, worker) for worker in range(workers)]
    opened: list[set[int]] = [set() for _ in range(workers)]
    spent = {"starting": 0.0, "computing": 0.0, "reading": 0.0}
    for scoring, reading, number, _ in tasks:
        since, worker = free[0]
        starts = 0.0 if number in opened[worker] else rates.start_seconds
        opened[worker].add(number)
        spent["starting"] += starts
        spent["computing" if scoring >= reading else "reading"] += max(scoring, reading)
        heapq.heapreplace(free, (since + starts + max(scoring, reading), worker))
    seconds, busy = max(free)[0], sum(spent.values())
    largest = max(max(task[:2]) for task in tasks)
    binds = "the largest chunk" if largest > 0.9 * seconds else max(spent, key=lambda kind: spent[kind])
    return Predicted(seconds, sum(task[3] for task in tasks), busy, binds)


def share_seconds(plan: ScanPlan, parts: int, rates: Rates) -> list[float]:
    """What each of the parts of a scan takes, which are fixed beforehand."""
    shares = [share_of(plan, Part(number, parts)).weights for number in range(parts)]
    return [
        rates.start_seconds
        + sum(rates.seconds_of(_shape(weight)) + weight.nbytes / rates.bytes_per_second for weight in share)
        for share in shares
    ]


def _shape(plan: WeightPlan) -> Shape:
    rows, columns = plan.main.shape
    return rows, columns


def plans_of(model: Model) -> list[WeightPlan]:
    """As if planned from a header."""
    found = []
    for (rows, columns), count in model.shapes.items():
        nbytes = rows * columns * model.value_bytes
        for _ in range(count):
            name = f"m{len(found)}"
            found.append(WeightPlan(name, name, TensorRef(name, Path("m"), "BF16", (rows, columns), 0, nbytes)))
    return found


# --- assumptions -------------------------------------------------------------------------------------------------


def _transformer(
    hidden: int, layers: int, inner: int, keys: int, vocab: int, *, gated: bool = True
) -> dict[Shape, int]:
    shapes = Counter[Shape]()
    shapes[hidden, hidden] += 2 * layers
    shapes[keys, hidden] += 2 * layers
    shapes[inner, hidden] += (2 if gated else 1) * layers
    shapes[hidden, inner] += layers
    shapes[vocab, hidden] += 1
    return dict(shapes)


def _experts(hidden: int, layers: int, inner: int, keys: int, vocab: int, count: int) -> dict[Shape, int]:
    shapes = Counter(_transformer(hidden, layers, inner, keys, vocab))
    shapes[inner, hidden] += 2 * layers * (count - 1)
    shapes[hidden, inner] += layers * (count - 1)
    return dict(shapes)


def _deepseek() -> dict[Shape, int]:
    family = Family(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        hidden=7168,
        intermediate=18432,
        heads=128,
        kv_heads=128,
        head_dim=128,
        vocab=129280,
        layers=61,
        experts=256,
        moe_intermediate=2048,
        dense_layers=3,
        q_lora=1536,
        kv_lora=512,
        rope_dim=64,
    )
    shapes = _decoder_shapes(family, family.layers, embeddings=True).values()
    return dict(Counter((shape[0], shape[1]) for shape in shapes if len(shape) == 2))


DEEPSEEK = Model("DeepSeek-V3", _deepseek(), value_bytes=1)
"""61 layers as its configuration has them, FP8; the layer that predicts a second token is left out (1.7 %)."""

DOWNLOADED: tuple[tuple[int, Model], ...] = (
    (220, Model("sentence encoder, 6 layers of 384", _transformer(384, 6, 1536, 384, 30522, gated=False), 4)),
    (330, Model("base encoder, 12 layers of 768", _transformer(768, 12, 3072, 768, 50000, gated=False), 4)),
    (130, Model("large encoder, 24 layers of 1024", _transformer(1024, 24, 4096, 1024, 100000, gated=False), 4)),
    (80, Model("language model of 0.5e9", _transformer(896, 24, 4864, 128, 151936))),
    (80, Model("language model of 1.5e9", _transformer(1536, 28, 8960, 256, 151936))),
    (40, Model("language model of 3e9", _transformer(3072, 28, 8192, 1024, 128256))),
    (80, Model("language model of 8e9", _transformer(4096, 32, 14336, 1024, 128256))),
    (15, Model("language model of 14e9", _transformer(5120, 48, 13824, 1024, 152064))),
    (10, Model("language model of 32e9", _transformer(5120, 64, 27648, 1024, 152064))),
    (8, Model("language model of 70e9", _transformer(8192, 80, 28672, 1024, 128256))),
    (4, Model("mixture of 30e9, 128 experts", _experts(2048, 48, 768, 512, 151936, 128))),
    (2, Model("mixture of 235e9, 128 experts", _experts(4096, 94, 1536, 512, 151936, 128))),
    (1, DEEPSEEK),
)
"""The 1,000 most downloaded models: how many of which size. An assumption: shapes are those of published
configurations, the counts are a guess from what public lists of downloads look like, not a survey."""

GPU_HOUR_DOLLARS = 3.0
GPU = Rates(
    # Between the two estimates of bench/gpu/README.md, 57 ms for 8192 x 28672 and 1.2 ms for 2048 x 7168 in a batch.
    seconds_of=lambda shape: (
        1.7 * shape[0] * shape[1] * min(shape) / 790e12 + 53.8e-3 * (min(shape) / 8192) ** 2.78 + 0.05e-3
    ),
    start_seconds=0.3,
    bytes_per_second=1.5e9,
    source_bytes_per_second=40e9,
)
"""One H200, its share of a node's network, and an object store: assumed, not measured."""


# --- measuring ---------------------------------------------------------------------------------------------------


def measure(rounds: int, layers: int = 12, scale: int = 4) -> dict[str, Any]:
    """Rates and real parts in turns; of each the least of all rounds."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        write_checkpoint(model, like="llama-3-8b", layers=layers, scale=scale, embeddings=False)
        plan = plan_scan(open_checkpoint(model))
        by_shape: dict[Shape, list[WeightPlan]] = {}
        for weight in plan.weights:
            by_shape.setdefault(_shape(weight), []).append(weight)
        reading: list[float] = []
        starting: list[float] = []
        scoring: dict[Shape, list[float]] = {shape: [] for shape in by_shape}
        parts: dict[int, list[list[float]]] = {count: [[] for _ in range(count)] for count in (1, 2, 4)}
        for number in range(rounds):
            reading.append(_processor_seconds(lambda: _read(plan)))
            for shape, weights in by_shape.items():
                few = weights[:6]
                own = reading[-1] * sum(weight.nbytes for weight in few) / plan.total_bytes
                scoring[shape].append((_processor_seconds(lambda few=few: _score(few)) - own) / len(few))
            starting.append(_child_seconds(model, Path(folder, f"s{number}.json"), "0/1", "*layers.0.self_attn.k_proj"))
            for count, found in parts.items():
                for part in range(count):
                    found[part].append(_child_seconds(model, Path(folder, f"{number}-{count}.json"), f"{part}/{count}"))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        seconds = {shape: min(found) for shape, found in scoring.items()}
        small = _shape(next(weight for weight in plan.weights if weight.name.endswith("layers.0.self_attn.k_proj")))
        rates = Rates(
            seconds_of=seconds.__getitem__,
            start_seconds=min(starting) - seconds[small],
            bytes_per_second=plan.total_bytes / min(reading),
        )
        return {
            "rounds": rounds,
            "checkpoint_bytes": plan.total_bytes,
            "matrices": len(plan.weights),
            "start_seconds": rates.start_seconds,
            "gigabyte_seconds": 1e9 / rates.bytes_per_second,
            "matrix_seconds": {f"{rows}x{columns}": value for (rows, columns), value in seconds.items()},
            "workers": {
                str(count): {
                    "measured_seconds": max(min(runs) for runs in found),
                    "predicted_seconds": max(share_seconds(plan, count, rates)),
                    "measured_parts": [min(runs) for runs in found],
                    "predicted_parts": share_seconds(plan, count, rates),
                }
                for count, found in parts.items()
            },
        }


def _read(plan: ScanPlan) -> None:
    with stream_weights(plan.weights, StreamOptions(digests=True)) as stream:
        for _ in stream:
            pass


def _score(weights: Sequence[WeightPlan]) -> None:
    options = ScanOptions(threads=1)
    score_weights(weights, make_scorer(options), options.stream, lambda _: None)


def _processor_seconds(call: Callable[[], None]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def _child_seconds(model: Path, out: Path, part: str, include: str = "") -> float:
    """Processor seconds of one part, a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "spectrum_fast", "scan", str(model), "--out", str(out), "--part", part, "--quiet"]
    command += ["--threads", "1", *(["--include", include] if include else [])]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- the page ----------------------------------------------------------------------------------------------------


def section(results: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Markdown between the two marks: the check, then what is predicted."""
    lines = [BEGIN, ""]
    for name, result in results:
        found, cpu = result["fleet"], result["machine"]["cpu"]
        lines += [
            f"Checked with parts of a checkpoint of {found['matrices']} matrices and "
            f"{found['checkpoint_bytes'] / 1e6:.0f} MB, in processor "
            f"seconds on {cpu['model']} (least of {found['rounds']} rounds; the slowest part counts, "
            f"{found['start_seconds']:.1f} s of each are its start). "
            f"Source: `bench/results/{name}`.",
            "",
            "| workers | predicted | measured | off by |",
            "|---|---|---|---|",
        ]
        for count, row in found["workers"].items():
            predicted, measured = row["predicted_seconds"], row["measured_seconds"]
            lines.append(f"| {count} | {predicted:.2f} s | {measured:.2f} s | {predicted / measured - 1:+.0%} |")
        lines.append("")
    total = sum(count for count, _ in DOWNLOADED)
    lines += [
        "**Predicted, not measured**, from the estimates for an H200 in `bench/gpu/README.md`, 1.5 GB/s of reading a "
        f"GPU, 40 GB/s of the store, 0.3 s to open a checkpoint, ${GPU_HOUR_DOLLARS:.0f} an hour and GPU. The "
        f"{total:,} most downloaded models are a table of sizes in `bench/fleet.py`, whose counts are an assumption.",
        "",
        "| what | GPUs | time | read | cost | binds |",
        "|---|---|---|---|---|---|",
    ]
    downloaded = [(count, plans_of(model)) for count, model in DOWNLOADED]
    for name, models in (("DeepSeek-V3, FP8", [(1, plans_of(DEEPSEEK))]), (f"{total:,} models", downloaded)):
        for workers in (1, 8, 64):
            run = simulate(models, workers, GPU)
            cost = run.seconds / 3600 * workers * GPU_HOUR_DOLLARS
            read = f"{run.nbytes / 1e12:.2f} TB"
            lines.append(f"| {name} | {workers} | {_time(run.seconds)} | {read} | ${cost:.2f} | {run.binds} |")
    return "\n".join([*lines, "", END])


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def with_section(page: str) -> str:
    """The page with the section made anew."""
    files = sorted((ROOT / "bench" / "results").glob("fleet-*.json"))
    made = section([(path.name, json.loads(path.read_text())) for path in files])
    return page[: page.index(BEGIN)] + made + page[page.index(END) + len(END) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    if options.measure:
        machine = machine_header()
        path = ROOT / "bench" / "results" / f"fleet-{machine_slug(machine)}.json"
        write_results(path, {"schema": SCHEMA, "machine": machine, "fleet": measure(options.rounds)})
    PAGE.write_text(with_section(PAGE.read_text()))


if __name__ == "__main__":
    main()
