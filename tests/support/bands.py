"""Band matrices in lower band storage, ``band[j, d] = B[j + d, j]``, and their dense truth."""

from __future__ import annotations

import torch
from torch import Tensor


def random_band(n: int, b: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """A normal random band; entries past the end hold NaN, so that a read of one shows."""
    band = torch.randn(n, b + 1, generator=torch.Generator().manual_seed(1000 * n + b + seed), dtype=torch.float64)
    for d in range(b + 1):
        band[max(n - d, 0) :, d] = torch.nan
    return band.to(dtype)


def dense(band: Tensor) -> Tensor:
    """The float64 matrix that a band stands for; entries past the end are not looked at."""
    n, width = band.shape
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for d in range(min(width, n)):
        values = band[: n - d, d].double()
        matrix.diagonal(-d).copy_(values)
        matrix.diagonal(d).copy_(values)
    return matrix


def dense_and_clean(band: Tensor) -> Tensor:
    """The same, where entries past the end must be zeros."""
    n, width = band.shape
    for d in range(width):
        assert not band[max(n - d, 0) :, d].any()
    return dense(band)


def eigenvalues(band: Tensor) -> Tensor:
    """Float64 eigenvalues, ascending."""
    return torch.linalg.eigvalsh(dense(band))
