"""Benchmarks of the GPU kernels: correctness before every time, floors beside every row.

``bench/gpu.sh`` runs this after the GPU tests. ``--rehearse`` (with ``TRITON_INTERPRET=1``) walks through every row
at toy sizes on the CPU, to prove the script and not the kernels' speed; it writes nothing.

A row: median, inter-quartile range, minimum and maximum over rounds, each timed by a pair of CUDA events; operands are
random and rotate so that they leave the L2 between rounds. ``bytes`` are those that must move, ``flops`` those of the
algorithm (a multiply-add is two), the floor is the larger of bytes at the measured copy rate and flops at the measured
bf16 matrix rate or the data sheet's vector rate.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import machine_header
from bench.peers import exact_singular_values, score_functional
from bench.results_file import SCHEMA, format_table, write_results
from spectrum_fast.ops.band import triton as triton_band
from spectrum_fast.ops.gram import triton as triton_gram
from spectrum_fast.ops.sturm import triton as triton_sturm
from spectrum_fast.scoring.criteria import find_criterion
from spectrum_fast.spectra.engine import compute_spectrum

ROTATED_BYTES = 256 << 20
"""Operands of a row together: four times the 60 MB L2 of an H200."""
VECTOR_FLOPS = {torch.float64: 34e12, torch.float32: 67e12}
"""NVIDIA H200 data sheet (SXM), vector units; not measured here."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class WrongResultError(Exception):
    """A result missed its truth: no time is taken."""


@dataclass(frozen=True)
class Case:
    """One row to be measured.

    Attributes:
        name: of the row.
        group: gram, sturm, band, spectrum.
        check: raises WrongResultError; returns the error found.
        calls: the call on each of the rotating operands.
        flops: of one call.
        bytes: of one call.
        flops_per_second: rate for the floor.
        peer: calls of the peer on the same operands; empty where there is none.
        peer_name: what the peer is.
        rounds: at most so many.
        peer_once: a slow peer is called once, without a warm-up.
    """

    name: str
    group: str
    check: Callable[[], float]
    calls: Sequence[Callable[[], object]]
    flops: float
    bytes: float
    flops_per_second: float
    peer: Sequence[Callable[[], object]] = field(default_factory=tuple)
    peer_name: str = ""
    rounds: int = 21
    peer_once: bool = False


def main() -> int:
    """Run all rows within the budget; exit code 1 if a result was wrong or a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--budget-seconds", type=float, default=280.0)
    parser.add_argument("--select", default="", help="only rows whose name contains this")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes; writes nothing")
    arguments = parser.parse_args()
    if DEVICE != "cuda" and not arguments.rehearse:
        print("gpu_suite: no CUDA device; nothing measured", file=sys.stderr)
        return 2
    end = time.monotonic() + arguments.budget_seconds
    rehearse = arguments.rehearse
    rates = measure_rates(64 if rehearse else 8192)
    rows, failures, skipped = [], [], missing_parts()

    def report() -> str:
        """The table so far, written too: a row that outlasts the caller's patience takes nothing with it."""
        results = {
            "schema": SCHEMA,
            "size": "rehearsal" if rehearse else "full",
            "machine": machine,
            "rates": rates,
            "rows": rows,
            "failures": failures,
            "skipped": skipped,
        }
        table = format_table(results) if rows else "no rows"
        text = "\n".join([table, *(f"FAILED  {line}" for line in failures), *(f"skipped {line}" for line in skipped)])
        if not rehearse:
            arguments.out.mkdir(parents=True, exist_ok=True)
            write_results(arguments.out / "gpu.json", results)
            (arguments.out / "gpu.txt").write_text(text + "\n", encoding="utf-8")
        return text

    machine = machine_header()
    for build in cases(rehearse, rates):
        if arguments.select not in build.name:
            continue
        if time.monotonic() > end:
            skipped.append(f"{build.name}: budget of {arguments.budget_seconds:.0f} s spent")
            continue
        try:
            rows.append(measure(build.make(), rates, 3 if rehearse else 21))
            print(f"{rows[-1]['name']}: {rows[-1]['median_seconds'] * 1e3:.3f} ms", file=sys.stderr)
        except (WrongResultError, RuntimeError, ValueError) as error:  # one row must not take the others with it
            failures.append(f"{build.name}: {type(error).__name__}: {error}")
            traceback.print_exc(limit=4)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        report()
    print(report())
    if rehearse:
        print("\nREHEARSAL: the times above mean nothing")
    return 1 if failures else 0


def missing_parts() -> list[str]:
    """Rows that the plan names and the code does not have yet."""
    parts = {
        "spectrum_fast.ops.rsvd": "batched randomized SVD rows",
    }
    return [f"{what}: {name} does not exist yet" for name, what in parts.items() if find_spec(name) is None]


def measure_rates(n: int) -> dict[str, float]:
    """Ceilings of this device: copy (bytes read and written a second) and dense bf16 products (flops a second)."""
    left, right = torch.randn(2, n, n, device=DEVICE).to(torch.bfloat16).unbind()
    product = statistics.median(time_calls([lambda: torch.mm(left, right)], 7))
    source = torch.randn(n * n * 8, device=DEVICE)
    target = torch.empty_like(source)
    copy = statistics.median(time_calls([lambda: target.copy_(source)], 7))
    return {"copy_bytes_per_second": 2.0 * source.nbytes / copy, "bf16_flops_per_second": 2.0 * n**3 / product}


def time_calls(calls: Sequence[Callable[[], object]], rounds: int, *, warm_up: bool = True) -> list[float]:
    """Seconds of each round, after one of every call that is not counted; calls take turns."""
    for call in calls if warm_up else ():
        call()
    if DEVICE != "cuda":
        seconds = []
        for index in range(rounds):
            start = time.perf_counter()
            calls[index % len(calls)]()
            seconds.append(time.perf_counter() - start)
        return seconds
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    torch.cuda.synchronize()
    for index, (start, stop) in enumerate(events):
        start.record()
        calls[index % len(calls)]()
        stop.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(stop) / 1e3 for start, stop in events]


def measure(case: Case, rates: dict[str, float], rounds: int) -> dict[str, Any]:
    """Check, then time, one row."""
    error = case.check()
    rounds = min(rounds, case.rounds)
    seconds = time_calls(case.calls, rounds)
    quartiles = statistics.quantiles(seconds, n=4)
    median = statistics.median(seconds)
    floor = max(case.bytes / rates["copy_bytes_per_second"], case.flops / case.flops_per_second)
    info: dict[str, Any] = {
        "error": error,
        "bytes": case.bytes,
        "flops": case.flops,
        "flops_per_second": case.flops / median,
        "floor_seconds": floor,
        "ratio_to_floor": median / floor,
    }
    if case.peer:
        peer = statistics.median(time_calls(case.peer, 1 if case.peer_once else rounds, warm_up=not case.peer_once))
        info |= {"peer": case.peer_name, "peer_seconds": peer, "ratio_to_peer": peer / median}
    return {
        "name": case.name,
        "group": case.group,
        "median_seconds": median,
        "iqr_seconds": quartiles[2] - quartiles[0],
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "rounds": rounds,
        "info": info,
    }


@dataclass(frozen=True)
class Build:
    """A row's name, and how to make its operands when its turn has come."""

    name: str
    make: Callable[[], Case]


def cases(rehearse: bool, rates: dict[str, float]) -> Iterator[Build]:
    """All rows, cheap ones first where the budget may end."""
    shrink = 64 if rehearse else 1
    bf16 = rates["bf16_flops_per_second"]
    for batch, m, n in [(1, 8192, 8192), (1, 1024, 8192), (1, 8192, 28672), (256, 2048, 7168)]:
        count, rows, columns = (max(batch // shrink, 1), m // shrink, n // shrink)
        shape = f"{batch}x{m}x{n}" if batch > 1 else f"{m}x{n}"
        for kind in ("bfloat16", "float32", "fp8"):
            if kind == "float32" and batch > 1:
                continue
            name = f"gram[{kind}-{shape}]"
            yield Build(name, lambda a=(name, kind, count, rows, columns): gram_case(*a, bf16))
    for kind in ("count_below", "log_det"):
        for b in (32, 64):
            for matrices, n in [(1, 2048), (64, 2048), (1, 8192), (8, 8192)]:
                for dtype in (torch.float64, torch.float32):
                    name = f"{kind}[b{b}-{matrices}x{n}-{str(dtype)[6:]}]"
                    size = (max(matrices // 32, 1), 20, 3) if rehearse else (matrices, n, 64)
                    yield Build(name, lambda a=(name, kind, b, dtype, *size): sturm_case(*a))

    yield from eigen_builds(rehearse, bf16)


def eigen_builds(rehearse: bool, bf16: float) -> Iterator[Build]:
    """The band reduction against a full eigensolver, then whole spectra; slow peers are called once."""
    for count, n in [(1, 1024), (64, 2048), (1, 4096), (1, 8192), (1, 16384)]:
        for b in (32, 64):
            for graph in (False, True):
                if (count, n) == (64, 2048) and graph and b == 64:
                    continue
                copies, order = (min(count, 2), 40) if rehearse else (count, n)
                name = f"band{'-graph' if graph else ''}[b{b}-{f'{count}x' if count > 1 else ''}{n}]"
                half_width = 8 if rehearse else b
                slow = b == 32 and not graph
                yield Build(name, lambda a=(name, copies, order, half_width, graph, slow, bf16): band_case(*a))
    # Llama-3.1-70B and DeepSeek-V3, by the time that the peer takes.
    shapes = [(1024, 8192), (2048, 7168), (576, 7168), (1536, 7168), (24576, 1536), (32768, 512)]
    for m, n in [*shapes, (8192, 8192), (8192, 28672), (7168, 16384), (18432, 7168)]:
        name, shape = f"spectrum[{m}x{n}]", (12, 20) if rehearse else (m, n)
        yield Build(name, lambda a=(name, *shape, torch.float32, bf16): spectrum_case(*a))
    for m, n in [(1024, 8192), (2048, 7168)]:
        name, shape = f"spectrum-vs-weightwatcher[{m}x{n}]", (12, 20) if rehearse else (m, n)
        yield Build(name, lambda a=(name, *shape, torch.float64, bf16): spectrum_case(*a))


def band_case(name: str, count: int, n: int, b: int, graph: bool, with_peer: bool, bf16_rate: float) -> Case:
    """Reduction of ``count`` float32 matrices of order n; with ``graph``, replayed from a CUDA graph.

    The call restores its operand first (4 n² bytes read, 4 n² written: 0.12 ms at n = 8192).
    """
    source = torch.empty(count, n, n, device=DEVICE)
    for index in range(count):
        weight = torch.randn(n, n + n // 4, device=DEVICE) / n**0.5
        source[index] = weight @ weight.T
        source[index] = (source[index] + source[index].T) / 2
    work = torch.empty_like(source)

    def reduce() -> Tensor:
        work.copy_(source)
        return triton_band.reduce_to_band(work, b)

    call: Callable[[], Tensor] = reduce
    if graph and DEVICE == "cuda":
        reduce()
        torch.cuda.synchronize()
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            band = reduce()

        def replay() -> Tensor:
            recorded.replay()
            return band

        call = replay

    def check() -> float:
        found, matrix = call()[-1].double(), source[-1].double()
        eps, norm = torch.finfo(torch.float32).eps, float(matrix.norm())
        band_norm = (found[:, 0].square().sum() + 2 * found[:, 1:].square().sum()).sqrt()
        change = max(abs(float(band_norm) / norm - 1), abs(float(found[:, 0].sum() / matrix.diagonal().sum()) - 1))
        if not change < 1000 * eps:
            raise WrongResultError(f"trace or norm changed by {change:.2e}")
        if n > 8192 or not with_peer:
            return change
        truth = torch.linalg.eigvalsh(matrix)
        x = torch.linspace(0.02, 0.98, 64, dtype=torch.float64, device=DEVICE) * truth[-1]
        slack = 20 * eps * norm / n**0.5
        counts = triton_sturm.count_below(found, x)
        low = (truth[None] < (x - slack)[:, None]).sum(1)
        high = (truth[None] <= (x + slack)[:, None]).sum(1)
        wrong = int(((counts < low) | (counts > high)).sum())
        if wrong:
            raise WrongResultError(f"{wrong} of 64 counts are outside what 20 eps ||A||_F / sqrt(n) allows")
        return change

    panels = -(-n // b)
    return Case(
        name,
        "band",
        check,
        [call],
        flops=count * 6.0 * n**3,
        bytes=count * panels * 8.0 * n * n / 3,
        flops_per_second=bf16_rate,
        peer=[lambda: torch.linalg.eigvalsh(source)] if with_peer else (),
        peer_name="torch.linalg.eigvalsh, float32, once",
        rounds=7,
        peer_once=True,
    )


def spectrum_case(name: str, m: int, n: int, peer_dtype: torch.dtype, bf16_rate: float) -> Case:
    """One bf16 weight to its score through the engine, against all singular values by ``torch.linalg.svdvals``.

    WeightWatcher takes them in float64 (bench/peers.py), the reference scanner in float32.
    """
    weight = (torch.randn(m, n, device=DEVICE) * 0.02).to(torch.bfloat16)
    some = min(m, n, 48)
    weight += (torch.randn(m, some, device=DEVICE) @ torch.randn(some, n, device=DEVICE) * 0.002).to(torch.bfloat16)
    criterion = find_criterion("spectrum")
    short, long = min(m, n), max(m, n)

    def call() -> object:
        return compute_spectrum(weight, criterion)

    def check() -> float:
        found = compute_spectrum(weight, criterion)
        truth = score_functional(exact_singular_values(weight, "gram").cpu(), weight.shape)
        if found.snr is None:
            raise WrongResultError("no score for a matrix that has one")
        error = abs(found.snr / truth["snr"] - 1)
        if not error < 1e-4:
            raise WrongResultError(f"score {found.snr:.6g}, expected {truth['snr']:.6g} ({found.method})")
        return error

    return Case(
        name,
        "spectrum",
        check,
        [call],
        flops=float(short) * short * long + 6.0 * short**3,
        bytes=2.0 * short * long + 8.0 * short * short,
        flops_per_second=bf16_rate,
        peer=[lambda: torch.linalg.svdvals(weight.to(peer_dtype))],
        peer_name=f"torch.linalg.svdvals, {str(peer_dtype)[6:]}, once",
        rounds=5,
        peer_once=True,
    )


def gram_case(name: str, kind: str, count: int, m: int, n: int, bf16_rate: float) -> Case:
    """Gram of ``count`` matrices m x n."""
    itemsize = {"bfloat16": 2, "float32": 4, "fp8": 1}[kind]
    copies = max(1, min(16, -(-ROTATED_BYTES // (count * m * n * itemsize))))
    short, long = min(m, n), max(m, n)
    weights = [_weight(kind, count, m, n) for _ in range(copies)]
    blocks = (count, -(-m // 128), -(-n // 128))
    scales = torch.rand(blocks, device=DEVICE) * 1e-3 + 1e-4

    def call(weight: Tensor) -> Tensor:
        return triton_gram.gram_block_scaled(weight, scales) if kind == "fp8" else triton_gram.gram(weight)

    def widened(weight: Tensor, index: int) -> Tensor:
        w = weight[index].double()
        if kind == "fp8":
            w = w * scales[index].double().repeat_interleave(128, 0)[:m].repeat_interleave(128, 1)[:, :n]
        return w if m <= n else w.T

    def check() -> float:
        found = call(weights[0])
        index = count - 1
        wide = widened(weights[0], index)
        some = torch.randperm(short, device=DEVICE)[:257]
        error = float(torch.linalg.norm(found[index][some].double() - wide[some] @ wide.T))
        error /= float(torch.linalg.norm(wide[some] @ wide.T))
        if not error < 4e-6 or not torch.equal(found, found.mT):
            raise WrongResultError(f"relative error {error:.2e}, expected below 4e-6 and a symmetric result")
        return error

    def full_product(weight: Tensor) -> Tensor:
        w = weight
        if kind == "fp8":
            w = (w.to(torch.bfloat16).float() * _spread(scales, m, n)).to(torch.bfloat16)
        w = w if m <= n else w.mT
        if kind == "float32" or DEVICE == "cpu":
            return torch.bmm(w.float(), w.mT.float())
        if count == 1:
            return torch.mm(w[0], w[0].T, out_dtype=torch.float32)
        return torch.bmm(w, w.mT, out_dtype=torch.float32)

    peer_name = {
        "bfloat16": "torch mm(out_dtype=float32), full product",
        "float32": "torch float32 mm (no TF32), full product",
        "fp8": "dequantised to a bf16 copy (rounded), then mm(out_dtype=float32)",
    }[kind]
    return Case(
        name,
        "gram",
        check,
        [lambda w=w: call(w) for w in weights],
        flops=float(count) * short * (short + 1) * long * (3 if kind == "float32" else 1),
        bytes=float(count) * (short * long * itemsize + 4 * short * short),
        flops_per_second=bf16_rate,
        peer=[lambda w=w: full_product(w) for w in weights],
        peer_name=peer_name,
    )


def _weight(kind: str, count: int, m: int, n: int) -> Tensor:
    """Random weights (count, m, n), made one matrix at a time so that no wide copy of a batch exists."""
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32, "fp8": torch.float8_e4m3fn}[kind]
    out = torch.empty(count, m, n, dtype=dtype, device=DEVICE)
    for index in range(count):
        values = torch.randn(m, n, device=DEVICE)
        out[index] = (values * 40).clamp(-448, 448).to(dtype) if kind == "fp8" else (values * 0.02).to(dtype)
    return out


def _spread(scales: Tensor, m: int, n: int) -> Tensor:
    return scales.repeat_interleave(128, -2)[:, :m].repeat_interleave(128, -1)[:, :, :n]


def sturm_case(name: str, kind: str, b: int, dtype: torch.dtype, matrices: int, n: int, shifts: int) -> Case:
    """``shifts`` shifts of each of ``matrices`` random bands of order n."""
    bands = torch.randn(matrices, n, b + 1, dtype=torch.float64, device=DEVICE)
    bands[:, :, 0] += 4 * b**0.5
    # Decoupled blocks: the truth of a long band is that of its blocks.
    block = min(n, 512)
    row = torch.arange(n, device=DEVICE)[:, None] % block + torch.arange(b + 1, device=DEVICE)
    bands.masked_fill_(row >= block, 0)
    bands = bands.to(dtype)
    reach = 4 * b**0.5
    x = torch.linspace(-0.5 * reach, 2.5 * reach, shifts, dtype=torch.float64, device=DEVICE).expand(matrices, -1)
    z = torch.complex(x, torch.full_like(x, 1.0))
    prepared = triton_sturm.prepare_band(bands).require_finite()
    counting = kind == "count_below"

    def call() -> Tensor:
        return triton_sturm.count_below(prepared, x) if counting else triton_sturm.log_det(prepared, z)

    def check() -> float:
        found = call()[-1].cpu()
        eps = torch.finfo(dtype).eps
        truth = torch.cat([_block_eigenvalues(part) for part in bands[-1].split(block)]).cpu()
        if counting:
            slack = 1e3 * n * eps * float(bands.abs().max())
            low = (truth < (x[-1].cpu() - slack)[:, None]).sum(1)
            high = (truth <= (x[-1].cpu() + slack)[:, None]).sum(1)
            wrong = int(((found < low) | (found > high)).sum())
            if wrong:
                raise WrongResultError(f"{wrong} of {shifts} counts are outside what rounding allows")
            return float((found - (truth < x[-1].cpu()[:, None]).sum(1)).abs().max())
        expected = torch.log(truth[None].to(torch.complex128) - z[-1].cpu()[:, None]).sum(1)
        error = float((found - expected).abs().max())
        if not error < 1e3 * n * eps * float(bands.abs().max()):
            raise WrongResultError(f"absolute error {error:.2e} of a log-determinant of order {n}")
        return error

    flops = float(matrices) * shifts * n * b * b * (1 if counting else 4)
    return Case(
        name,
        "sturm",
        check,
        [call],
        flops=flops,
        bytes=float(prepared.rows.nbytes),
        flops_per_second=VECTOR_FLOPS[dtype],
    )


def _block_eigenvalues(band: Tensor) -> Tensor:
    """Float64 eigenvalues of one band matrix, by LAPACK or cuSOLVER on the dense matrix."""
    n, width = band.shape
    dense = torch.zeros(n, n, dtype=torch.float64, device=band.device)
    for d in range(min(width, n)):
        dense.diagonal(-d).copy_(band[: n - d, d].double())
        dense.diagonal(d).copy_(band[: n - d, d].double())
    return torch.linalg.eigvalsh(dense)


if __name__ == "__main__":
    raise SystemExit(main())
