"""Matrices whose singular values are known exactly, because they were chosen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def with_singular_values(values: np.ndarray, rows: int, columns: int, seed: int = 0) -> Tensor:
    """A ``rows x columns`` float64 matrix ``U diag(values) V^T`` with random orthogonal U and V."""
    generator = torch.Generator().manual_seed(seed)
    size = len(values)
    left = torch.linalg.qr(torch.randn(rows, size, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, size, generator=generator, dtype=torch.float64)).Q
    return left * torch.from_numpy(np.asarray(values, dtype=np.float64)) @ right.T


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Pure noise with unit variance, float64."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained_like(rows: int, columns: int, outliers: tuple[float, ...] = (), seed: int = 0) -> Tensor:
    """Noise bulk plus a heavy tail of 48 directions, plus rank-one outliers of the given sizes; float64."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    bulk = randn(rows, columns) / (rows**0.5 + columns**0.5)
    rank = min(48, rows, columns)
    strengths = 3.0 * torch.arange(1, rank + 1, dtype=torch.float64) ** -0.7
    tail = (randn(rows, rank) / rows**0.5 * strengths) @ randn(rank, columns) / columns**0.5
    matrix = bulk + tail
    for size in outliers:
        left, right = randn(rows, 1), randn(1, columns)
        matrix += size * (left / left.norm()) @ (right / right.norm())
    return matrix


def few_noise_values(n_noise: int, rows: int = 300, columns: int = 400, seed: int = 0) -> np.ndarray:
    """Singular values (ascending) of which exactly ``n_noise`` lie at or below the reference threshold.

    Most values crowd in [1, 1.6], so the inter-quartile range, and with it the threshold, is small: about half of the
    smallest of them. Grouped k/v projections of trained models look like this.
    """
    size = min(rows, columns)
    rng = np.random.default_rng(seed)
    crowd = np.sort(rng.uniform(1.0, 1.6, size - n_noise))
    q25, q75 = np.quantile(crowd, [0.25, 0.75])
    threshold = (q75 - q25) / 1.349 * (1 + (size / max(rows, columns)) ** 0.5)
    few = np.sort(rng.uniform(0.05, 0.6, n_noise)) * threshold
    return np.concatenate([few, crowd])
