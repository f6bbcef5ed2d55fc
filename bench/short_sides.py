"""How much of pure noise the corrected criterion calls signal where a matrix has few singular values.

Usage: python -m bench.short_sides    (a minute on one core; writes bench/results/calibration-short-sides.json)

The Marchenko-Pastur edge is that of infinite matrices. The largest singular values of noise lie around it within a
width that falls with the short side to the power of -2/3, and the median of few values is itself uncertain, so that of
a small matrix more than a few values come to lie above. Singular values are those of float64 SVD, not of the package's
engine. Seeds are fixed; ``tests/bench/test_short_sides.py`` measures a part of it again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine_header
from bench.results_file import SCHEMA, write_results
from spectrum_fast.measure.scoring.marchenko_pastur import noise_scale, upper_edge

PATH = Path(__file__).resolve().parent / "results" / "calibration-short-sides.json"
SHORT_SIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
ASPECTS = (1, 2, 4, 16, 64, 256)
LONGEST = 8192
ENTRIES, FEWEST, MOST = 4_000_000, 100, 4000
"""Entries drawn for each shape, and how many matrices that may be."""


def main() -> int:
    """Measure every shape and write the file."""
    shapes = [(short, short * aspect) for short in SHORT_SIDES for aspect in ASPECTS if short * aspect <= LONGEST]
    rows = [row(*shape) for shape in shapes]
    results = {"schema": SCHEMA, "size": "full", "kind": "calibration", "machine": machine_header(), "rows": rows}
    write_results(PATH, results)
    print(f"written: {PATH.name}, {len(rows)} rows")
    return 0


def row(n_min: int, n_max: int) -> dict[str, Any]:
    """Mean share of the singular values of noise that lie above the edge, its standard error, and the largest share."""
    runs = min(MOST, max(FEWEST, ENTRIES // (n_min * n_max)))
    generator = np.random.default_rng([n_min, n_max])
    shares = np.array([_share(generator.standard_normal((n_min, n_max))) for _ in range(runs)])
    return {
        "name": f"short-side[{n_min}x{n_max}]",
        "kind": "short side",
        "shape": [n_min, n_max],
        "runs": runs,
        "mean": float(f"{shares.mean():.3g}"),
        "standard_error": float(f"{shares.std() / runs**0.5:.2g}"),
        "largest": float(f"{shares.max():.3g}"),
    }


def _share(noise: np.ndarray) -> float:
    values = np.linalg.svd(noise, compute_uv=False)
    return float(np.mean(values > upper_edge(noise_scale(float(np.median(values)), *noise.shape), *noise.shape)))


if __name__ == "__main__":
    sys.exit(main())
