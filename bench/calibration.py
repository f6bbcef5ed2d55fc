"""How far the two criteria are noise tests: measured on pure Gaussian noise, on planted signal, and under scaling.

Usage: python -m bench.calibration    (a minute on two cores; writes bench/results/calibration-noise.json)

Seeds are fixed, so that another machine gives the same figures to rounding. ``tests/bench/test_calibration.py`` runs a
small part of it again and compares it with the committed file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import spectrum_fast as sf
from bench.machine import machine_header
from bench.results_file import SCHEMA, write_results
from spectrum_fast.measure.scoring.criteria import ScanCriterion
from spectrum_fast.measure.scoring.marchenko_pastur import upper_edge

PATH = Path(__file__).resolve().parent / "results" / "calibration-noise.json"
SHAPES = ((1024, 1024), (768, 1024), (512, 1024), (384, 1024), (256, 1024), (128, 1024), (64, 1024), (2048, 2048))
SEEDS = range(5)
PLANTED = 8
SPIKE_OVER_EDGE = 1.5


def main() -> int:
    """Measure everything and write the file."""
    rows = [noise_row(shape, SEEDS) for shape in SHAPES]
    rows += [planted_row(shape, SEEDS) for shape in ((1024, 1024), (512, 1024), (256, 1024))]
    rows += [scale_row(factor) for factor in (0.1, 1.0, 10.0)]
    results = {"schema": SCHEMA, "size": "full", "kind": "calibration", "machine": machine_header(), "rows": rows}
    write_results(PATH, results)
    print(f"written: {PATH.name}, {len(rows)} rows")
    return 0


def noise_row(shape: tuple[int, int], seeds: Sequence[int]) -> dict[str, Any]:
    """Share of the singular values of pure noise that each criterion calls signal, mean over the seeds."""
    weights = [noise(shape, seed) for seed in seeds]
    return _row("noise", shape, {rule: [_signal(weight, rule) / min(shape) for weight in weights] for rule in RULES})


def planted_row(shape: tuple[int, int], seeds: Sequence[int]) -> dict[str, Any]:
    """How many values each criterion calls signal where :data:`PLANTED` lie above the edge of the noise."""
    weights = [noise(shape, seed) + planted(shape, seed) for seed in seeds]
    return _row("planted", shape, {rule: [float(_signal(weight, rule)) for weight in weights] for rule in RULES})


def scale_row(factor: float, shape: tuple[int, int] = (512, 1024)) -> dict[str, Any]:
    """The score of one and the same matrix times a factor, where :data:`PLANTED` values are signal."""
    weight = factor * (noise(shape, 0) + planted(shape, 0))
    scores = {rule: [sf.spectrum(weight, criterion=rule).snr or 0.0] for rule in RULES}
    return {**_row("scale", shape, scores), "name": f"scale[{factor:g}]", "factor": factor}


RULES: tuple[ScanCriterion, ...] = ("spectrum", "mp")


def noise(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Standard normal entries, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def planted(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """A matrix of rank :data:`PLANTED` whose singular values are 1.5 times the edge of standard noise of its shape."""
    generator = torch.Generator().manual_seed(1000 + seed)
    left = torch.linalg.qr(torch.randn(shape[0], PLANTED, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(shape[1], PLANTED, generator=generator)).Q
    return SPIKE_OVER_EDGE * upper_edge(1.0, min(shape), max(shape)) * left @ right.T


def _signal(weight: torch.Tensor, rule: ScanCriterion) -> int:
    return sf.spectrum(weight, criterion=rule).n_signal


def _row(kind: str, shape: tuple[int, int], found: dict[str, list[float]]) -> dict[str, Any]:
    means = {rule: float(f"{sum(values) / len(values):.4g}") for rule, values in found.items()}
    spread = {rule: float(f"{max(values) - min(values):.4g}") for rule, values in found.items()}
    return {
        "name": f"{kind}[{shape[0]}x{shape[1]}]",
        "kind": kind,
        "shape": list(shape),
        "runs": len(next(iter(found.values()))),
        "mean": means,
        "spread": spread,
    }


if __name__ == "__main__":
    sys.exit(main())
