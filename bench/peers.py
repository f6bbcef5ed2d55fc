"""How others score a matrix, written from the description of what they do, and the float64 truth.

``reference_score``: the public Spectrum scanner (QuixiAI/spectrum). float32, ``torch.linalg.svdvals``, linear
quantiles, ``sigma = (q75 - q25) / 1.349``, ``threshold = sigma (1 + √beta)``,
``SNR = sum(S > threshold) / sum(S <= threshold) / S_max``.

``weightwatcher_singular_values``: WeightWatcher (CalculatedContent) casts each matrix with ``W.astype(float)``, that is
to float64, and takes the values-only SVD on the CPU (``scipy.linalg.svd(W, compute_uv=False)``, or the ``numpy.linalg``
one with Accelerate; both call LAPACK ``dgesdd`` with ``jobz='N'``). It switches to ``torch.linalg.svdvals`` only where
CUDA is there. numpy's call is used here, because numpy is a dependency of the package and scipy is not.
Source of both: FORMATS notes on the reference, and reading ``RMT_Util.py`` and ``weightwatcher.py``.

:data:`PEERS`: every way that a person takes to all singular values of one matrix in float32 on a CPU. numpy's wheels
bring OpenBLAS, torch's MKL, which is at its slowest on processors of others. ``kappa_targets`` is PEFT's selector,
which calls ``svdvals`` of one matrix after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

IQR_TO_SIGMA = 1.349
"""Inter-quartile range of a unit normal distribution, as rounded by the reference."""


def reference_score(weight: Tensor) -> float:
    """The reference's score of a matrix, computed as the reference does.

    Args:
        weight: matrix of any floating type (a vector counts as one row).

    Returns:
        SNR divided by S_max; ``inf`` for an empty noise set, as in the results published before 2025-04.
    """
    return score_functional(torch_values(weight), _as_matrix(weight).shape)["snr"]


def weightwatcher_singular_values(weight: Tensor) -> np.ndarray:
    """Singular values as WeightWatcher computes them on a CPU: all of them, float64, descending."""
    return np.linalg.svd(_as_matrix(weight).double().numpy(), compute_uv=False)


def openblas_values(weight: Tensor) -> Tensor:
    """Singular values by OpenBLAS: float32 ``gesdd``, values only."""
    return torch.from_numpy(np.linalg.svd(_as_matrix(weight).float().numpy(), compute_uv=False))


def openblas_values_of_gram(weight: Tensor) -> Tensor:
    """By OpenBLAS: float32 ``ssyevd`` of the Gram matrix of the short side; what is small is squared away."""
    wide = _wide(weight).numpy()
    return torch.from_numpy(np.linalg.eigvalsh(wide @ wide.T)).clamp_(min=0).sqrt_()


def torch_values_of_gram(weight: Tensor) -> Tensor:
    """The same by torch."""
    wide = _wide(weight)
    return torch.linalg.eigvalsh(wide @ wide.T).clamp_(min=0).sqrt_()


def torch_values(weight: Tensor) -> Tensor:
    """Singular values as the reference takes them: float32 ``torch.linalg.svdvals``."""
    return torch.linalg.svdvals(_as_matrix(weight).float())


PEERS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch svdvals": torch_values,
    "OpenBLAS svdvals": openblas_values,
    "torch eigvalsh of the Gram": torch_values_of_gram,
    "OpenBLAS eigvalsh of the Gram": openblas_values_of_gram,
}
"""By the name they have in tables; the first is the reference's."""


def kappa_targets(model: Any) -> Any:
    """PEFT's selector over all linear layers of a model."""
    from peft.helpers import find_kappa_target_modules

    return find_kappa_target_modules(model, show_progress=False)


def exact_score(weight: Tensor, method: Literal["svd", "gram"] = "svd") -> dict[str, float]:
    """Score and its parts from all singular values in float64.

    Args:
        weight: matrix of any floating type.
        method: ``svd`` takes ``svdvals`` of the float64 matrix. ``gram`` takes ``eigvalsh`` of the float64 Gram matrix:
            relative accuracy of a value s is about 1e-16 (s_max / s)^2, so it serves well-conditioned matrices only,
            many times faster.

    Returns:
        The keys of :func:`score_functional`.
    """
    return score_functional(exact_singular_values(weight, method), _as_matrix(weight).shape)


def exact_singular_values(weight: Tensor, method: Literal["svd", "gram"] = "svd") -> Tensor:
    """All singular values in float64, descending; ``method`` as in :func:`exact_score`."""
    matrix = _as_matrix(weight).double()
    if method == "svd":
        return torch.linalg.svdvals(matrix)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp_(min=0).sqrt_().flip(0)


def score_functional(singular_values: Tensor, shape: torch.Size | tuple[int, ...]) -> dict[str, float]:
    """The reference's functional of a full list of singular values.

    Args:
        singular_values: all of them, any order; arithmetic stays in their dtype.
        shape: shape of the matrix (for beta = n_min / n_max).

    Returns:
        ``s_max, s_min, q25, q50, q75, threshold, n_signal, n_noise, signal_sum, noise_sum, snr``; ``snr`` is ``inf``
        where the noise set is empty or sums to zero with signal above it, 0 for a matrix of zeros.
    """
    points = torch.tensor([0.25, 0.5, 0.75], dtype=singular_values.dtype)
    q25, q50, q75 = torch.quantile(singular_values, points).unbind()
    beta = min(shape) / max(shape)
    threshold = (q75 - q25) / IQR_TO_SIGMA * (1.0 + math.sqrt(beta))
    is_signal = singular_values > threshold
    signal_sum = singular_values[is_signal].sum().item()
    noise_sum = singular_values[~is_signal].sum().item()
    s_max = singular_values.max().item()
    without_noise = math.inf if signal_sum > 0 else 0.0
    snr = signal_sum / noise_sum / s_max if noise_sum > 0 else without_noise
    return {
        "s_max": s_max,
        "s_min": singular_values.min().item(),
        "q25": q25.item(),
        "q50": q50.item(),
        "q75": q75.item(),
        "threshold": threshold.item(),
        "n_signal": int(is_signal.sum()),
        "n_noise": int((~is_signal).sum()),
        "signal_sum": signal_sum,
        "noise_sum": noise_sum,
        "snr": snr,
    }


def _wide(weight: Tensor) -> Tensor:
    """Float32, no more rows than columns."""
    matrix = _as_matrix(weight).float()
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def _as_matrix(weight: Tensor) -> Tensor:
    return weight.unsqueeze(0) if weight.ndim == 1 else weight
