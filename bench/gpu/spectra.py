"""Whole spectra: weights in, scores out, as a scan computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from bench.gpu.record import Record
from bench.gpu.timing import DEVICE, Build, Case, WrongResultError
from bench.gpu.weights import trained_like, true_score
from spectrum_fast.measure.ops.device_graph import use_graphs
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.record import Spectrum

# Llama-3.1-70B and DeepSeek-V3: the largest sides and the experts first, then the rest.
FIRST = [(1, 8192, 8192), (1, 8192, 28672), (64, 2048, 7168), (3, 8192, 28672), (1, 2048, 7168)]
REST = [(1, 1024, 8192), (1, 7168, 16384), (1, 18432, 7168), (1, 24576, 1536), (1, 32768, 512), (1, 1536, 7168)]
REST += [(1, 576, 7168)]


def spectrum_builds(
    shapes: Sequence[tuple[int, int, int]], record: Record, rehearse: bool, bf16_rate: float
) -> Iterator[Build]:
    """A row for each (matrices, rows, columns) of weights in bfloat16."""
    for count, m, n in shapes:
        name = f"spectrum[{f'{count}x' if count > 1 else ''}{m}x{n}]"
        copies, rows, columns = (min(count, 2), 200, 230) if rehearse else (count, m, n)
        yield Build(name, lambda a=(name, copies, rows, columns): spectrum_case(*a, record, bf16_rate))


def graph_builds(record: Record, rehearse: bool, bf16_rate: float) -> Iterator[Build]:
    """The first shapes again, with reductions replayed from CUDA graphs."""
    for count, m, n in FIRST[:3]:
        name = f"spectrum-graph[{f'{count}x' if count > 1 else ''}{m}x{n}]"
        copies, rows, columns = (min(count, 2), 200, 230) if rehearse else (count, m, n)
        yield Build(name, lambda a=(name, copies, rows, columns): spectrum_case(*a, record, bf16_rate, graph=True))


def spectrum_case(
    name: str, count: int, m: int, n: int, record: Record, bf16_rate: float, *, graph: bool = False
) -> Case:
    """Weights of one shape to their scores through the engine of a scan."""
    weights = trained_like(count, m, n)
    criterion = find_criterion("spectrum")
    short, long = min(m, n), max(m, n)
    info: dict[str, object] = {}

    def call() -> list[Spectrum | Exception]:
        with use_graphs(graph):
            return compute_spectra(weights, criterion)

    def check() -> float:
        found = [call() for _ in range(3 if graph else 1)][-1][0]
        if not isinstance(found, Spectrum) or found.snr is None:
            raise WrongResultError(f"no score for a matrix that has one: {found}")
        truth = true_score(weights[0], record)
        error = abs(found.snr / truth - 1)
        if not error <= min(found.error_bound, 1e-4):
            raise WrongResultError(
                f"score {found.snr:.8g}, expected {truth:.8g} within {found.error_bound:.1e} ({found.method})"
            )
        info.update(method=found.method, error_bound=found.error_bound, reason=found.reason, matrices=count)
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
            call()
            info["peak_device_bytes"] = torch.cuda.max_memory_allocated()
        return error

    return Case(
        name,
        "spectrum",
        check,
        [call],
        flops=count * (float(short) * short * long + 6.0 * short**3),
        bytes=count * (2.0 * short * long + 8.0 * short * short),
        flops_per_second=bf16_rate,
        rounds=5,
        info=info,
    )
