"""Random matrices of hostile families, for property tests of stated error bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Family = Callable[[np.random.Generator, int, int], np.ndarray]


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def _prescribed(rng: np.random.Generator, rows: int, columns: int, values: np.ndarray) -> np.ndarray:
    size = len(values)
    return (_orthogonal(rng, rows, size) * values) @ _orthogonal(rng, columns, size).T


def gaussian(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Pure noise."""
    return rng.standard_normal((rows, columns))


def heavy_tailed(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Entries from a Student t with 1.5 to 4 degrees of freedom."""
    return rng.standard_t(rng.uniform(1.5, 4.0), (rows, columns))


def spiked(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Noise plus up to 60 directions of up to 3000 times its size."""
    rank = int(rng.integers(1, min(60, rows, columns) + 1))
    strengths = rng.uniform(1, 10.0 ** rng.uniform(0.5, 3.5), rank)
    noise = rng.standard_normal((rows, columns)) / (rows**0.5 + columns**0.5)
    return noise + (_orthogonal(rng, rows, rank) * strengths) @ _orthogonal(rng, columns, rank).T


def power_law(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Singular values ``k^-a`` with a in [0.2, 2.5]."""
    return _prescribed(rng, rows, columns, np.arange(1, min(rows, columns) + 1.0) ** -rng.uniform(0.2, 2.5))


def clustered(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A few clusters of nearly equal singular values."""
    size = min(rows, columns)
    centres = 10.0 ** rng.uniform(-2, 1, int(rng.integers(2, 6)))
    spread = 1 + 10.0 ** rng.uniform(-8, -2) * rng.standard_normal(size)
    return _prescribed(rng, rows, columns, rng.choice(centres, size) * spread)


def repeated(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Exactly repeated singular values."""
    return _prescribed(rng, rows, columns, rng.choice(10.0 ** rng.uniform(-2, 1, 5), min(rows, columns)))


def ill_conditioned(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Geometric spectrum down to 1e-7."""
    return _prescribed(rng, rows, columns, np.geomspace(10.0 ** -rng.uniform(2, 7), 1.0, min(rows, columns)))


def rank_deficient(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A tenth to nine tenths of the singular values are zero up to rounding."""
    rank = max(1, int(min(rows, columns) * rng.uniform(0.1, 0.9)))
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


def graded_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows (or columns) of very different size, as in weights after outlier channels."""
    scales = np.exp(rng.uniform(0.2, 2.0) * rng.standard_normal(rows))
    return rng.standard_normal((rows, columns)) * scales[:, None]


def blocks(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Block diagonal, the same block repeated."""
    height, width = max(1, rows // 4), max(1, columns // 4)
    return np.kron(np.eye(4), rng.standard_normal((height, width)))[:rows, :columns]


def with_mean(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """All entries positive: one huge direction."""
    return rng.standard_normal((rows, columns)) + rng.uniform(0.5, 20.0)


def near_threshold(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A cluster of singular values within 1e-3 of the reference threshold."""
    size = min(rows, columns)
    values = np.sort(rng.uniform(0.05, 2.0, size))
    for _ in range(20):  # the threshold moves as values move; iterate to a fixed point
        q25, q75 = np.quantile(values, [0.25, 0.75])
        threshold = (q75 - q25) / 1.349 * (1 + (size / max(rows, columns)) ** 0.5)
        nearest = np.argsort(np.abs(values - threshold))[: max(1, size // 10)]
        values[nearest] = threshold * (1 + 1e-3 * rng.standard_normal(len(nearest)))
    return _prescribed(rng, rows, columns, values)


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        gaussian,
        heavy_tailed,
        spiked,
        power_law,
        clustered,
        repeated,
        ill_conditioned,
        rank_deficient,
        graded_rows,
        blocks,
        with_mean,
        near_threshold,
    )
}


def draw(name: str, seed: int, smallest: int, largest: int) -> Tensor:
    """One matrix of a family: log-uniform sides in [smallest, largest], random scale, rounded to a random dtype."""
    rng = np.random.default_rng([seed, *name.encode()])
    rows, columns = (int(side) for side in np.exp(rng.uniform(np.log(smallest), np.log(largest + 1), 2)))
    matrix = FAMILIES[name](rng, max(rows, 1), max(columns, 1))
    dtype = [torch.float64, torch.float32, torch.bfloat16, torch.float16][int(rng.integers(4))]
    if dtype != torch.float16:
        matrix = matrix * 10.0 ** rng.uniform(-30, 30)
    else:
        matrix = matrix / max(np.abs(matrix).max(), 1e-300)
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype)
