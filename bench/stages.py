"""Where the time of a scan goes: seconds in each kernel, and between them (Python, torch, LAPACK).

Usage: python -m bench.stages 576x1536 4096x4096 ...        processor milliseconds a matrix, one thread, to stdout
       python -m bench.stages --experts 3000 --name NAME    a whole scan of as many matrices of 512 x 1024, written to
                                                            bench/results/NAME.json

Every function of the compiled extension is timed by the clock of the thread that calls it, so that neither other
processes nor the threads beside it count; each has one core, as in a scan of small matrices.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import spectrum_fast as sf
from bench.machine import machine_header
from bench.results_file import SCHEMA, write_results
from bench.weights import make_tensor
from spectrum_fast import _native
from spectrum_fast.measure.ops.dispatch import set_threads
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.schedule import ADAPTIVE

RESULTS = Path(__file__).resolve().parent / "results"
KERNELS = ("measure", "gram", "multiply", "reduce_to_band", "multiply_band", "count_below", "narrow", "log_abs_det")
KERNELS += ("decode_groups", "decode_nibbles", "decode_scaled", "gram_add", "gram_update", "turn_back")
KERNELS += ("iterate_inverse", "band_values")
DIGESTS = "sha256"
"""A kernel, too, but not one of the score: it is timed by itself."""
EXPERT = (512, 1024)
DIFFERENT = 64
"""Experts that are drawn; the others are these with their rows moved on, which costs a scan as much."""


@contextmanager
def kernel_seconds() -> Iterator[dict[str, float]]:
    """Seconds of processor time in each kernel while it is open, all threads together."""
    seconds: dict[str, float] = defaultdict(float)
    lock = threading.Lock()

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed_call(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                taken = time.thread_time() - began
                with lock:
                    seconds[name] += taken

        return timed_call

    originals = {name: getattr(_native, name) for name in (*KERNELS, DIGESTS)}
    try:
        for name, call in originals.items():
            setattr(_native, name, timed(name, call))
        yield seconds
    finally:
        for name, call in originals.items():
            setattr(_native, name, call)


def stages_of(shape: tuple[int, int], least_seconds: float = 2.0) -> dict[str, float]:
    """Processor seconds of one matrix in each kernel, between them, and in all; as many together as a scan takes."""
    together = len(ADAPTIVE.parts(64, shape)[0])
    names = (f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(together))
    weights = torch.stack([make_tensor(name, shape) for name in names])
    criterion = find_criterion("spectrum")
    compute_spectra(weights, criterion)
    done = 0
    with kernel_seconds() as seconds:
        began = time.process_time()
        while time.process_time() - began < least_seconds:
            compute_spectra(weights, criterion)
            done += together
        total = time.process_time() - began
    found = {name: seconds[name] / done for name in KERNELS if seconds[name]}
    return {**found, "between": (total - sum(seconds.values())) / done, "all": total / done}


def scan_of_experts(count: int) -> dict[str, Any]:
    """A whole scan of a mixture of experts: how much of its processor time is spent in kernels."""
    drawn = [make_tensor(f"model.layers.{index}.mlp.up_proj.weight", EXPERT) for index in range(DIFFERENT)]
    with tempfile.TemporaryDirectory() as folder:
        names = [f"model.layers.{n // 6}.mlp.experts.{n % 6}.up_proj.weight" for n in range(count)]
        weights = {name: drawn[n % DIFFERENT].roll(n // DIFFERENT, 0) for n, name in enumerate(names)}
        save_file(weights, Path(folder) / "model.safetensors")
        del weights
        scan_folder = sf.scan  # what it imports is no part of a scan
        with kernel_seconds() as seconds:
            began, wall = time.process_time(), time.perf_counter()
            scan = scan_folder(folder)
            total, wall = time.process_time() - began, time.perf_counter() - wall
    assert not scan.failures, "every expert has to be scored"
    return {
        "modules": count,
        "shape": list(EXPERT),
        "processor_seconds": total,
        "wall_seconds": wall,
        "kernel_share": sum(seconds[name] for name in KERNELS) / total,
        "kernel_and_digest_share": sum(seconds.values()) / total,
        "kernel_seconds": dict(seconds),
        "methods": sorted({str(module.method) for module in scan.modules}),
        "largest_error_bound": max(module.error_bound or 0.0 for module in scan.modules),
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Where the time of a scan goes.")
    parser.add_argument("shapes", nargs="*", metavar="ROWSxCOLUMNS")
    parser.add_argument("--experts", type=int, metavar="N", help="a scan of N matrices of 512 x 1024")
    parser.add_argument("--name", help="of the result file of that scan")
    options = parser.parse_args()
    if options.experts:
        found = scan_of_experts(options.experts)
        print(found)
        if options.name:
            head = {"schema": SCHEMA, "size": "full", "machine": machine_header()}
            write_results(RESULTS / f"{options.name}.json", {**head, **found})
    set_threads(1)
    torch.set_num_threads(1)
    for text in options.shapes:
        rows, columns = map(int, text.split("x"))
        found = stages_of((rows, columns))
        print(text, ", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in found.items()), flush=True)


if __name__ == "__main__":
    main()
