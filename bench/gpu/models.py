"""All matrices of a model's shapes through the engine on a GPU, layers repeated from host memory.

A batch of each shape, as large as a scan makes them, lies in
page-locked memory; it is copied, scored and forgotten until the model's matrices of that shape are done or the time is,
which scales the rest. Correctness comes first: one matrix of every shape against float64 singular values on the same
device.
``--rehearse`` walks through it at toy sizes on any device.

A row: seconds in all, the split copy / Gram / probes / band / slice (CUDA events), matrices, how many the batches did
not serve, bytes, flops, peak memory of the device, and the same a matrix for each shape.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu.record import Record
from bench.gpu.timing import WrongResultError
from bench.gpu.weights import to_fp8, trained_like, true_score
from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.measure.ops.decode.coded import from_parts
from spectrum_fast.measure.ops.device_graph import RECORDINGS, recording
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.ops.triton_support import kernel_errors
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.device_check import require_right_answers
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.methods import band as band_method
from spectrum_fast.measure.spectra.record import Spectrum
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.scanning.scorers import GPU_MOST_TOGETHER, LEAST_BATCHES, batch_bytes_on, bytes_in_work

Shape = tuple[int, int]
EXPERTS = {(2048, 7168): 2 * 257, (7168, 2048): 257}
MODELS: dict[str, tuple[int, dict[Shape, int], bool]] = {
    # q, o, k, v, gate, up, down of one of 80 layers
    "llama-3.1-70b": (80, {(8192, 8192): 2, (1024, 8192): 2, (28672, 8192): 2, (8192, 28672): 1}, False),
    # one of 58 expert layers, of its 256 experts (three matrices each) and one shared; attention left out: 1 %
    "deepseek-v3 experts": (58, EXPERTS, False),
    # the same as they are published: FP8 with a scale for each 128 x 128 block
    "deepseek-v3 experts fp8": (58, EXPERTS, True),
}
STAGES = ("square", "measure_gram_error", "reduce_to_band", "slice_bands")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class StageClock:
    """Time spent in each stage of a batch, by CUDA events (by the clock on a CPU)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(("copy", *STAGES), 0.0)
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what is done inside to a stage."""
        if DEVICE == "cpu":
            began = time.perf_counter()
            yield
            self.seconds[stage] += time.perf_counter() - began
            return
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        stop.record()
        self._events.append((stage, start, stop))

    def read(self) -> dict[str, float]:
        """Seconds by stage so far; waits for the device."""
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        for stage, start, stop in self._events:
            self.seconds[stage] += start.elapsed_time(stop) / 1e3
        self._events.clear()
        return {stage: round(value, 4) for stage, value in self.seconds.items()}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Put the clock around the engine's stages."""
        kept = {stage: getattr(band_method, stage) for stage in STAGES}

        def wrapped(stage: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                with self.timed(stage):
                    return kept[stage](*arguments, **options)

            return call

        for stage in STAGES:
            setattr(band_method, stage, wrapped(stage))
        try:
            yield
        finally:
            for stage, function in kept.items():
                setattr(band_method, stage, function)


class Matrices:
    """Matrices of one shape in memory of the host, page-locked where there is a GPU: bfloat16, or FP8 codes and scales.

    Args:
        weights: (m, rows, columns) bfloat16.
        fp8: whether to keep them as codes with a scale for each 128 x 128 block.
    """

    def __init__(self, weights: Tensor, *, fp8: bool = False) -> None:
        self._parts = to_fp8(weights) if fp8 else (weights,)
        if DEVICE == "cuda":
            self._parts = tuple(part.pin_memory() for part in self._parts)

    @property
    def nbytes(self) -> int:
        """Of one matrix."""
        return sum(part.nbytes for part in self._parts) // len(self._parts[0])

    def on_device(self, count: int) -> Tensor | list[Codes]:
        """The first ``count`` of them, copied; does not wait for it."""
        parts = [part[:count].to(DEVICE, non_blocking=True) for part in self._parts]
        return parts[0] if len(parts) == 1 else [from_parts(*one) for one in zip(*parts, strict=True)]


def check(matrices: Matrices, record: Record) -> float:
    """Error of one score against float64 singular values; raises where it is outside 1e-4."""
    weight = matrices.on_device(1)[0]
    found = compute_spectra([weight], find_criterion("spectrum"))[0]
    numbers = decode(weight) if isinstance(weight, Codes) else weight
    truth = true_score(numbers, record, "fp8" if isinstance(weight, Codes) else "bfloat16")
    if not isinstance(found, Spectrum) or found.snr is None:
        raise WrongResultError(f"no score for {tuple(weight.shape)}: {found}")
    error = abs(found.snr / truth - 1)
    if not error < 1e-4:
        raise WrongResultError(f"{tuple(weight.shape)}: score {found.snr:.8g}, expected {truth:.8g}")
    return error


def run_model(
    name: str, layers: int, shapes: dict[Shape, int], shape_seconds: float, record: Record, *, fp8: bool
) -> dict[str, Any]:
    """One model, shape by shape; each stops after its time and is scaled, which the row then says."""
    criterion = find_criterion("spectrum")
    total = StageClock().read()
    by_shape: dict[str, dict[str, Any]] = {}
    row = dict.fromkeys(("seconds", "matrices", "alone", "bytes", "flops", "error", "peak"), 0.0)
    for shape, count in shapes.items():
        wanted = layers * count
        most = min(-(-wanted // LEAST_BATCHES), together(shape, batch_bytes_on(DEVICE), fp8=fp8))
        host = Matrices(trained_like(most, *shape, on_host=True), fp8=fp8)
        row["error"] = max(row["error"], check(host, record))
        clock, done, alone = StageClock(), 0, 0
        if DEVICE == "cuda":
            compute_spectra(host.on_device(most), criterion)  # compiles what is not compiled yet
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        began = time.perf_counter()
        with clock.watching(), recording():
            while done < wanted and time.perf_counter() - began < shape_seconds:
                with clock.timed("copy"):
                    on_device = host.on_device(min(most, wanted - done))
                found = compute_spectra(on_device, criterion)
                alone += sum(not getattr(one, "reason", "").startswith("batch") for one in found)
                done += len(found)
        split = clock.read()
        seconds, scale = time.perf_counter() - began, wanted / done
        found_of_shape = {
            "together": most,
            "measured": done,
            "of": wanted,
            "alone": alone,
            "milliseconds_each": round(seconds / done * 1e3, 4),
            "split_milliseconds_each": {stage: round(value / done * 1e3, 4) for stage, value in split.items()},
        }
        by_shape[f"{shape[0]}x{shape[1]}"] = found_of_shape
        each = {"name": f"model[{name}, {shape[0]}x{shape[1]}]", "group": "model", "rounds": done}
        record.add({**each, "median_seconds": seconds / done, "info": found_of_shape})
        print(f"{each['name']}: {seconds / done * 1e3:.3f} ms each, {found_of_shape}", flush=True)
        total = {stage: total[stage] + split[stage] * scale for stage in total}
        row["seconds"] += seconds * scale
        row["matrices"] += wanted
        row["alone"] += alone * scale
        row["bytes"] += float(host.nbytes) * wanted
        row["flops"] += wanted * _flops(shape)
        row["peak"] = max(row["peak"], torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0)
        del host
        RECORDINGS.forget()
    info: dict[str, Any] = {
        "layers": layers,
        "matrices": round(row["matrices"]),
        "scored_alone": round(row["alone"]),
        "bytes": row["bytes"],
        "flops": row["flops"],
        "split_seconds": {stage: round(value, 4) for stage, value in total.items()},
        "error": row["error"],
        "peak_device_bytes": int(row["peak"]),
        "shapes": by_shape,
    }
    return {"name": f"model[{name}]", "group": "model", "median_seconds": row["seconds"], "rounds": 1, "info": info}


def together(shape: Shape, batch_bytes: int, *, fp8: bool) -> int:
    """Matrices that a scan collects, as far as the memory goes that it gives a batch."""
    like = torch.empty(shape, dtype=torch.float8_e4m3fn if fp8 else torch.bfloat16, device="meta")
    return max(1, min(GPU_MOST_TOGETHER, batch_bytes // bytes_in_work([like])))


def _flops(shape: Shape) -> float:
    short, long = sorted(shape)
    return float(short) * short * long + 6.0 * short**3


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, see the module's docstring; exit code 1 if a model failed."""
    parser = argparse.ArgumentParser(description="Model-shaped compute on a GPU.")
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on any device")
    parser.add_argument("--kind", choices=("bfloat16", "fp8"), help="only models stored so")
    parser.add_argument("--budget", type=float, default=180.0, help="seconds; what is not done by then is scaled")
    options = parser.parse_args(arguments)
    record = Record(options.out, rehearse=options.rehearse)
    chosen = {name: one for name, one in MODELS.items() if options.kind in (None, "fp8" if one[2] else "bfloat16")}
    seconds = 0.5 * options.budget / sum(len(shapes) for _, shapes, _ in chosen.values())  # weights take the other half
    failed = False
    if DEVICE == "cuda":  # as in a scan: kernels are compiled and compared, and graphs are on if replays are right
        try:
            require_right_answers(f"{DEVICE}:0", find_criterion("spectrum"))
        except BackendUnavailableError as error:  # each model has its own comparison below
            failed = True
            record.note("failures", f"known spectra: {str(error)[:300]}")
    for name, (layers, shapes, fp8) in chosen.items():
        if options.rehearse:
            layers, shapes = 2, {(max(m // 32, 200), max(n // 32, 200)): min(c, 3) for (m, n), c in shapes.items()}
        try:
            with use_backend("auto" if DEVICE == "cuda" else MODEL):  # the GPU's order of steps wherever it runs
                row = run_model(name, layers, shapes, seconds, record, fp8=fp8)
        except (WrongResultError, ValueError, *kernel_errors()) as error:  # one model must not take the others with it
            failed = True
            record.note("failures", f"model[{name}]: {type(error).__name__}: {str(error)[:300]}")
            print(f"model[{name}]: FAILED  {type(error).__name__}: {str(error)[:300]}", file=sys.stderr, flush=True)
            continue
        record.add(row)
        print(f"{row['name']}: {row['median_seconds']:.2f} s, {row['info']}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
