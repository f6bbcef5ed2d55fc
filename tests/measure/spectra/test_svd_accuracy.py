"""How exact LAPACK's singular values are, which the bounds of the SVD method state: against more digits than it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectrum_fast.measure.spectra.methods.svd import _REDUCTION, _REDUCTION_GROWTH, _SPLITTING

from support import families


def allowed(values: np.ndarray, longest: int, eps: float) -> np.ndarray:
    """The error of each value that the method assumes."""
    return eps * (_SPLITTING * values + (_REDUCTION + _REDUCTION_GROWTH * longest**0.5) * values.max())


def jacobi_singular_values(matrix: np.ndarray) -> np.ndarray:
    """One-sided Jacobi in extended precision, falling: plane rotations until all columns are orthogonal.

    Pairs of columns that have nothing in common are rotated together (a round-robin tournament).
    """
    a = np.array(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T, dtype=np.longdouble)
    if a.shape[1] % 2:
        a = np.hstack([a, np.zeros((a.shape[0], 1), dtype=np.longdouble)])
    players = np.arange(a.shape[1])
    half = len(players) // 2
    for _ in range(30):
        largest = 0.0
        for _ in range(len(players) - 1):
            p, q = players[:half], players[: half - 1 : -1]
            x, y = a[:, p], a[:, q]
            xx, yy, xy = (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)
            scale = np.sqrt(xx * yy)
            todo = np.abs(xy) > np.finfo(np.longdouble).eps * scale
            if todo.any():
                largest = max(largest, float((np.abs(xy[todo]) / scale[todo]).max()))
                zeta = np.where(todo, (yy - xx) / np.where(todo, 2 * xy, 1), 0)
                t = np.where(zeta >= 0, 1, -1) / (np.abs(zeta) + np.sqrt(1 + zeta * zeta))
                cosine = np.where(todo, 1 / np.sqrt(1 + t * t), 1)
                sine = np.where(todo, t * cosine, 0)
                a[:, p], a[:, q] = cosine * x - sine * y, sine * x + cosine * y
            players = np.concatenate([players[:1], players[-1:], players[1:-1]])
        if largest < 1e-17:
            break
    return np.sort(np.sqrt((a * a).sum(0)))[::-1][: min(matrix.shape)]


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="this machine has no extended precision")
@pytest.mark.parametrize("name", families.FAMILIES)
def test_float64_against_extended_precision(name: str) -> None:
    rng = np.random.default_rng([7, *name.encode()])
    for rows, columns in ((24, 24), (17, 40), (60, 8)):
        matrix = families.FAMILIES[name](rng, rows, columns)
        exact = jacobi_singular_values(matrix)
        assert float((exact**2).sum() / (matrix.astype(np.longdouble) ** 2).sum()) == pytest.approx(1, rel=1e-15)
        for found in (np.linalg.svd(matrix, compute_uv=False), torch.linalg.svdvals(torch.from_numpy(matrix)).numpy()):
            assert (np.abs(found - exact) <= allowed(found, max(rows, columns), 2.0**-52)).all(), (rows, columns)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_float32_against_float64(name: str) -> None:
    rng = np.random.default_rng([7, *name.encode()])
    for rows, columns in ((30, 30), (100, 100), (60, 500), (260, 260)):
        matrix = families.FAMILIES[name](rng, rows, columns)
        weight = torch.from_numpy(matrix / np.abs(matrix).max()).float()
        exact = np.linalg.svd(weight.double().numpy(), compute_uv=False)
        found = torch.linalg.svdvals(weight).double().numpy()
        assert (np.abs(found - exact) <= allowed(exact, max(rows, columns), 2.0**-23)).all(), (rows, columns)
