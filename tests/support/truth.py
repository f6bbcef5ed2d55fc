"""Float64 truth of the published score, straight from its definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import spectrum_fast as sf

TOLERANCE = 1e-4
"""Relative accuracy that every score must have."""


@dataclass(frozen=True)
class Truth:
    """All functionals from a full float64 singular value decomposition."""

    values: np.ndarray
    q25: float
    q75: float
    threshold: float
    n_noise: int
    noise_sum: float
    signal_sum: float
    snr: float


def exact(weight: Tensor) -> Truth:
    """The reference rule on float64 singular values."""
    values = np.linalg.svd(weight.to(torch.float64).numpy(), compute_uv=False)[::-1]
    q25, q75 = np.quantile(values, [0.25, 0.75])
    n_min, n_max = sorted(weight.shape)
    threshold = (q75 - q25) / 1.349 * (1 + np.sqrt(n_min / n_max))
    noise = values <= threshold
    noise_sum, signal_sum = values[noise].sum(), values[~noise].sum()
    snr = signal_sum / noise_sum / values[-1] if noise_sum > 0 else np.inf
    return Truth(values, q25, q75, threshold, int(noise.sum()), noise_sum, signal_sum, snr)


def assert_matches(weight: Tensor, found: sf.Spectrum, tolerance: float = TOLERANCE) -> None:
    """The score lies within its stated bound and the tolerance of the truth, and so do the functionals behind it."""
    expected = exact(weight.cpu())
    assert found.snr is not None
    assert abs(found.snr / expected.snr - 1) <= min(tolerance, found.error_bound)
    assert found.error_bound <= tolerance
    assert found.n_noise == expected.n_noise
    assert found.n_signal + found.n_noise == min(weight.shape)
    assert found.s_max == pytest.approx(expected.values[-1], rel=1e-5)
    assert found.q25 == pytest.approx(expected.q25, rel=1e-4)
    assert found.q75 == pytest.approx(expected.q75, rel=1e-4)
    assert found.threshold == pytest.approx(expected.threshold, rel=1e-4)
    assert found.noise_sum == pytest.approx(expected.noise_sum, rel=1e-4)
    assert found.signal_sum == pytest.approx(expected.signal_sum, rel=1e-4)
    assert found.frobenius_residual < 1e-5
