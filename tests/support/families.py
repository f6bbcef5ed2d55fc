"""Random matrices of hostile families, for property tests of stated error bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.record import OrderStatistics

from support.structures import STRUCTURES

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


def badly_scaled(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows and columns of sizes from 1e-30 to 1e30: most singular values are lost beside the largest in any method."""
    reach = 10.0 ** rng.uniform(-1, np.log10(15))
    matrix = rng.standard_normal((rows, columns)) * 10.0 ** rng.uniform(-reach, reach, (rows, 1))
    return matrix * 10.0 ** rng.uniform(-reach, reach, columns)


def near_threshold(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A tenth of the singular values within 1e-9 to 1e-3 of the published rule's threshold."""
    return _prescribed(rng, rows, columns, _near(rng, rows, columns, "spectrum"))


def near_edge(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A tenth of the singular values within 1e-9 to 1e-3 of the Marchenko-Pastur edge that the median gives."""
    return _prescribed(rng, rows, columns, _near(rng, rows, columns, "mp"))


def _near(rng: np.random.Generator, rows: int, columns: int, criterion: str) -> np.ndarray:
    size = min(rows, columns)
    rule = find_criterion(criterion)
    values = np.sort(rng.uniform(0.05, 2.0, size))

    def threshold() -> float:
        q25, q50, q75 = np.quantile(values, [0.25, 0.5, 0.75])
        return rule.threshold(OrderStatistics(values.min(), q25, q50, q75, values.max()), size, max(rows, columns))

    nearest = np.argsort(np.abs(values - threshold()))[: max(1, size // 10)]
    offsets = rng.choice([-1.0, 1.0], len(nearest)) * 10.0 ** rng.uniform(-9, -3, len(nearest))
    for _ in range(20):  # the threshold moves as values move; iterate to the fixed point
        values[nearest] = threshold() * (1 + offsets)
    return values


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
        badly_scaled,
        near_threshold,
        near_edge,
        *STRUCTURES,
    )
}


_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CODES = (torch.float8_e4m3fn, torch.float8_e5m2)
_LARGEST = 1e30
"""Of an entry, before rounding: matrices of entries from 1e-30 to this are drawn wherever the dtype allows."""


def draw_sides(rng: np.random.Generator, smallest: int, largest: int, count: int = 1) -> np.ndarray:
    """Rows and columns (2, count), each log-uniform over the whole numbers from ``smallest`` to ``largest``."""
    return np.exp(rng.uniform(np.log(smallest), np.log(largest + 1), (2, count))).astype(int).clip(smallest, largest)


def draw(name: str, seed: int, smallest: int, largest: int) -> Tensor:
    """One matrix of a family: sides log-uniform in [smallest, largest], of random scale and rounded to a random dtype.

    The dtypes are float64, float32, bfloat16, float16, and FP8 (e4m3 or e5m2) with one scale for the whole, a row or a
    block of 32 x 32, which comes decoded to float32. All but float16 and FP8 are multiplied by 1e-30 to 1e30.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    rows, columns = (int(side) for side in draw_sides(rng, smallest, largest)[:, 0])
    matrix = FAMILIES[name](rng, rows, columns)
    choice = int(rng.integers(len(_PLAIN) + 1))
    peak = max(float(np.abs(matrix).max()), 1e-300)
    if choice == len(_PLAIN):
        return _rounded_to_codes(matrix / peak, _CODES[int(rng.integers(2))], int(rng.integers(3)))
    dtype = _PLAIN[choice]
    scale = 1 / peak if dtype == torch.float16 else min(10.0 ** rng.uniform(-30, 30), _LARGEST / peak)
    return torch.from_numpy(np.ascontiguousarray(matrix * scale)).to(dtype)


def _rounded_to_codes(matrix: np.ndarray, dtype: torch.dtype, granularity: int) -> Tensor:
    """Codes times scales in float32, with one scale for the whole (0), a row (1), or a block of 32 x 32 (2)."""
    rows, columns = matrix.shape
    block = ((rows, columns), (1, columns), (32, 32))[granularity]
    codes, scales = to_codes(torch.from_numpy(np.ascontiguousarray(matrix)), dtype, block)
    return from_codes(codes, scales, block)


def to_codes(matrix: Tensor, dtype: torch.dtype, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """FP8 codes of a float64 matrix, and their float32 scales, one a block; the largest code is used in each."""
    (rows, columns), (height, width) = matrix.shape, block
    tall, wide = math.ceil(rows / height), math.ceil(columns / width)
    padded = torch.zeros(tall * height, wide * width, dtype=torch.float64)
    padded[:rows, :columns] = matrix
    limit = torch.finfo(dtype).max
    peaks = padded.view(tall, height, wide, width).abs().amax((1, 3))
    scales = torch.where(peaks > 0, peaks / limit, 1.0).clamp(min=1e-30).to(torch.float32)
    codes = padded[:rows, :columns] / _spread(scales, block, matrix.shape).to(torch.float64)
    return codes.clamp(-limit, limit).to(dtype), scales


def from_codes(codes: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """What the codes stand for, in float32: what a scan of an FP8 checkpoint scores."""
    return codes.to(torch.float32) * _spread(scales, block, codes.shape)


def _spread(scales: Tensor, block: tuple[int, int], shape: torch.Size) -> Tensor:
    return scales.repeat_interleave(block[0], 0)[: shape[0]].repeat_interleave(block[1], 1)[:, : shape[1]]
