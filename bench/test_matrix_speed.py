"""Seconds a matrix: ours against the peers, and each stage against the floor of its arithmetic.

Weights are those of a Llama-3-8B-shaped layer in bfloat16 (:mod:`bench.weights`). No time is taken before the score
agrees with the float64 truth to 1e-4.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

import spectrum_fast as sf
from bench.families import model_shapes
from bench.floors import gemm_flops_per_second, gram_flops_per_second
from bench.peers import PEERS, exact_singular_values, weightwatcher_singular_values
from bench.weights import make_tensor
from spectrum_fast.measure.ops.band import reduce_to_band
from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.ops.sturm import count_below, log_abs_det
from spectrum_fast.measure.spectra.methods.band import half_width

TOLERANCE = 1e-4
"""Relative error of a score that the package promises."""

MATRICES = {
    "full": {
        "1024x4096": ("model.layers.0.self_attn.k_proj.weight", (1024, 4096)),
        "2048x2048": ("bench.layers.0.mlp.square.weight", (2048, 2048)),
        "2048x7168": ("bench.layers.0.mlp.experts.0.down_proj.weight", (2048, 7168)),
        "4096x4096": ("model.layers.0.self_attn.q_proj.weight", (4096, 4096)),
        "4096x14336": ("model.layers.0.mlp.down_proj.weight", (4096, 14336)),
    },
    "small": {
        "1024x4096": ("model.layers.0.self_attn.k_proj.weight", (128, 512)),
        "2048x2048": ("bench.layers.0.mlp.square.weight", (256, 256)),
        "2048x7168": ("bench.layers.0.mlp.experts.0.down_proj.weight", (256, 896)),
        "4096x4096": ("model.layers.0.self_attn.q_proj.weight", (512, 512)),
        "4096x14336": ("model.layers.0.mlp.down_proj.weight", (512, 1792)),
    },
}
"""Row of the result -> (parameter it imitates, shape); the small setting keeps the rows and divides the sides by 8."""

STAGE_SIDES = {"full": 4096, "small": 512}
STAGE_DEPTHS = {"full": 14336, "small": 1792}
SHIFTS = 256
SHIFTS_A_MATRIX = 700
"""Real shifts that the whole method takes for one matrix; a complex one counts as four."""


@cache
def weight_of(name: str, shape: tuple[int, ...]) -> Tensor:
    return make_tensor(name, shape, seed=0, dtype=torch.bfloat16)


@cache
def layer_of(size: str) -> tuple[Tensor, ...]:
    shapes = model_shapes("llama-3-8b", 1, 1 if size == "full" else 8, embeddings=False)
    return tuple(weight_of(name, shape) for name, shape in shapes.items() if len(shape) == 2)


def assert_exact(spectrum: Any, truth: dict[str, float]) -> float:
    """Check a score against the truth; returns its relative error."""
    if math.isinf(truth["snr"]):
        assert spectrum.n_noise == 0, f"the noise set is empty, found {spectrum.n_noise} values in it"
        return 0.0
    error = abs(spectrum.snr - truth["snr"]) / truth["snr"]
    assert error <= TOLERANCE, f"score {spectrum.snr} misses {truth['snr']} by {error:.1e}, more than {TOLERANCE:.0e}"
    return error


@pytest.mark.parametrize("row", list(MATRICES["full"]))
@pytest.mark.benchmark(group="spectrum")
def test_spectrum(row: str, bench_size: str, benchmark: Any, interleaved: Any, truth: Any, peer_clock: Any) -> None:
    weight = weight_of(*MATRICES[bench_size][row])
    found = sf.spectrum(weight)
    error = assert_exact(found, truth.score(weight))
    peers = {name: partial(peer_clock.time, peer, weight) for name, peer in PEERS.items()}
    interleaved.run(lambda: sf.spectrum(weight), peers, 5)
    n_min, n_max = sorted(weight.shape)
    flops = n_min * (n_min + 1) * n_max + 4 / 3 * n_min**3
    benchmark.extra_info |= {
        "shape": list(weight.shape),
        "dtype": "bf16",
        "method": found.method,
        "relative_error": error,
    }
    _against_floor(benchmark, flops, STAGE_SIDES[bench_size] // 2)


@pytest.mark.parametrize("row", ["2048x2048", "1024x4096"])
@pytest.mark.benchmark(group="spectrum-weightwatcher")
def test_spectrum_against_weightwatcher(
    row: str, bench_size: str, benchmark: Any, interleaved: Any, truth: Any, peer_clock: Any
) -> None:
    weight = weight_of(*MATRICES[bench_size][row])
    assert_exact(sf.spectrum(weight), truth.score(weight))
    peer = {"WeightWatcher: float64 LAPACK gesdd": partial(peer_clock.time, weightwatcher_singular_values, weight)}
    interleaved.run(lambda: sf.spectrum(weight), peer, 3)
    benchmark.extra_info |= {"shape": list(weight.shape), "dtype": "bf16"}


@pytest.mark.benchmark(group="layer")
def test_llama_layer(bench_size: str, benchmark: Any, interleaved: Any, truth: Any, peer_clock: Any) -> None:
    layer = layer_of(bench_size)
    errors = [assert_exact(sf.spectrum(weight), truth.score(weight)) for weight in layer]

    def ours() -> None:
        for weight in layer:
            sf.spectrum(weight)

    def all_by(peer: Callable[[Tensor], Tensor]) -> float:
        return sum(peer_clock.time(peer, weight) for weight in layer)

    interleaved.run(ours, {name: partial(all_by, peer) for name, peer in PEERS.items()}, 3)
    benchmark.extra_info |= {
        "modules": len(layer),
        "dtype": "bf16",
        "largest_relative_error": max(errors),
        "gigabytes_per_second": sum(w.nbytes for w in layer) / benchmark.stats.stats.median / 1e9,
    }
    flops = sum(min(w.shape) ** 2 * max(w.shape) + 4 / 3 * min(w.shape) ** 3 for w in layer)
    _against_floor(benchmark, flops, STAGE_SIDES[bench_size] // 2)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.benchmark(group="stage")
def test_gram_stage(dtype: str, bench_size: str, benchmark: Any) -> None:
    """Floor: half of a dense product (the Gram matrix is symmetric) at the rate of ``torch.mm`` in float32."""
    n, depth = STAGE_SIDES[bench_size], STAGE_DEPTHS[bench_size]
    weight = weight_of("model.layers.0.mlp.down_proj.weight", (n, depth))
    if dtype == "f32":
        weight = weight.float()
    sample = weight[:64].double() @ weight.double().T
    found = gram(weight[None])[0, :64].double()
    assert torch.linalg.norm(found - sample) <= 2e-6 * torch.linalg.norm(sample)
    benchmark.pedantic(lambda: gram(weight[None]), rounds=5, warmup_rounds=1)
    _against_floor(benchmark, float(n) * (n + 1) * depth, n // 2)
    benchmark.extra_info |= {
        "n": n,
        "depth": depth,
        "dtype": dtype,
        "dense_equivalent_gflops": 2.0 * n * n * depth / benchmark.stats.stats.median / 1e9,
        "mm_bf16_gflops": gemm_flops_per_second(n // 2, torch.bfloat16) / 1e9,
    }


@pytest.mark.benchmark(group="stage")
def test_band_stage(bench_size: str, benchmark: Any) -> None:
    """Floor: 4/3 n³ operations, what the reduction costs where it uses symmetry, at the rate of ``torch.mm``."""
    n = STAGE_SIDES[bench_size]
    b = half_width(n)
    matrix = gram(weight_of("model.layers.0.self_attn.q_proj.weight", (n, n))[None])
    trace, energy = matrix[0].diagonal().double().sum(), torch.linalg.norm(matrix.double())
    band = reduce_to_band(matrix.clone(), b)[0]
    assert abs(band[:, 0].double().sum() - trace) <= 1e-5 * trace
    off_diagonal = torch.linalg.norm(band[:, 1:].double())
    found_energy = torch.sqrt(torch.linalg.norm(band[:, 0].double()) ** 2 + 2 * off_diagonal**2)
    assert abs(found_energy - energy) <= 1e-5 * energy
    benchmark.pedantic(
        lambda copy: reduce_to_band(copy, b),
        setup=lambda: ((matrix.clone(),), {}),
        rounds=4,
        warmup_rounds=1,
    )
    _against_floor(benchmark, 4 / 3 * n**3, n // 2)
    benchmark.extra_info |= {"n": n, "half_width": b, "dtype": "f32"}


@pytest.mark.parametrize("operation", ["count_below", "log_det"])
@pytest.mark.benchmark(group="stage")
def test_sturm_stage(operation: str, bench_size: str, benchmark: Any) -> None:
    """Floor: n b² operations a shift (four times that in complex arithmetic) at the rate of ``torch.mm`` in float32."""
    n = STAGE_SIDES[bench_size] // 2
    b = half_width(n)
    weight = weight_of("bench.layers.0.mlp.square.weight", (n, n))
    bands = reduce_to_band(gram(weight[None]), b)
    eigenvalues = exact_singular_values(weight, "gram").flip(0) ** 2
    shifts = torch.quantile(eigenvalues, torch.linspace(0.05, 0.95, SHIFTS, dtype=torch.float64))
    if operation == "count_below":
        counts = count_below(bands, shifts[None])[0]
        assert (counts.cpu() - torch.searchsorted(eigenvalues, shifts)).abs().max() <= 2
        benchmark.pedantic(lambda: count_below(bands, shifts[None]), rounds=5, warmup_rounds=1)
        flops = float(n) * b**2 * SHIFTS
    else:
        real = shifts[::8]
        points = torch.complex(real, torch.full_like(real, 0.05 * eigenvalues.median().item()))
        found = log_abs_det(bands, points[None])[0]
        exact = (eigenvalues - points[:, None]).abs().log().sum(1)
        assert (found - exact).abs().max() <= 1e-4 * n
        benchmark.pedantic(lambda: log_abs_det(bands, points[None]), rounds=5, warmup_rounds=1)
        flops = 4.0 * n * b**2 * len(points)
    _against_floor(benchmark, flops, STAGE_SIDES[bench_size] // 2)
    benchmark.extra_info |= {"n": n, "half_width": b, "dtype": str(bands.dtype).removeprefix("torch.")}


@pytest.mark.parametrize("b", [16, 32, 64])
@pytest.mark.parametrize("side", [512, 1024, 2048, 4096])
@pytest.mark.benchmark(group="half-width")
def test_half_width(side: int, b: int, bench_size: str, benchmark: Any) -> None:
    """Reduction and the shifts that one matrix takes, at each band width: where to change from one to the next."""
    n = side if bench_size == "full" else side // 8
    matrix = gram(weight_of("bench.layers.0.mlp.square.weight", (n, n))[None])
    scale = matrix[0].diagonal().mean().item()
    shifts = torch.linspace(0.0, 4.0, SHIFTS_A_MATRIX, dtype=torch.float64) * scale
    seconds: dict[str, list[float]] = {"band": [], "slice": []}

    def reduce_and_slice(copy: Tensor) -> Tensor:
        start = time.perf_counter()
        bands = reduce_to_band(copy, b)
        middle = time.perf_counter()
        counts = count_below(bands, shifts[None])[0]
        seconds["band"].append(middle - start)
        seconds["slice"].append(time.perf_counter() - middle)
        return counts

    counts = benchmark.pedantic(reduce_and_slice, setup=lambda: ((matrix.clone(),), {}), rounds=3, warmup_rounds=1)
    assert 0 < counts[SHIFTS_A_MATRIX // 2] < n
    assert (counts.diff() >= 0).all()
    medians = {f"{stage}_seconds": statistics.median(values[1:]) for stage, values in seconds.items()}
    benchmark.extra_info |= {"n": n, "half_width": b, "chosen": b == half_width(n), **medians}


def _against_floor(benchmark: Any, flops: float, n: int) -> None:
    """Record operations, the rates of float32 products measured now, and how far the median is from them.

    ``floor_seconds`` is ``flops`` at the rate of ``torch.mm``; ``ratio_to_own_floor`` takes the rate of our own Gram
    product instead. Both rates are those of n x n matrices.
    """
    mm_rate, own_rate = gemm_flops_per_second(n), gram_flops_per_second(n)
    median = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "flops": flops,
        "mm_float32_gflops": mm_rate / 1e9,
        "own_gram_float32_gflops": own_rate / 1e9,
        "floor_seconds": flops / mm_rate,
        "ratio_to_floor": median * mm_rate / flops,
        "ratio_to_own_floor": median * own_rate / flops,
    }
