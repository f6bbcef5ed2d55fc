"""Float64 truth of the published score, straight from its definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
