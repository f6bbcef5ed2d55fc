"""What a truncated decomposition leaves out, measured on the factors themselves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PROBES = 16
"""Random vectors of the spectral bound. MKL multiplies by 16 columns in half to a quarter of the time that 10 take."""
_SAFETY = 10 ** (10 / PROBES)
"""It fails with probability ``_SAFETY ** -PROBES`` = 1e-10."""
_POWERS = 2
_SEED = 20406
_DIRECT = 1e-3
"""Share of the energy below which the left-over is measured entry by entry, since the difference of two sums of squares
would be rounding."""
_MEASURED = 1e-3
"""Relative accuracy of the measured Frobenius norm."""
_CHUNK_ENTRIES = 1 << 24


def frobenius_error(weight: Tensor, u: Tensor, s: Tensor, vh: Tensor, energy: float) -> float:
    """``||W - U S V^T||_F`` for one matrix; relative error about 1e-3, or ``eps ||W||_F`` absolute.

    ``W - U S V^T`` is orthogonal to ``U S V^T``, since U are Ritz vectors: so its square is ``||W||_F^2 - sum s^2``.

    Args:
        weight: (m, n).
        u: (m, k).
        s: (k,) float64.
        vh: (k, n).
        energy: ``||W||_F^2`` in float64.
    """
    left = energy - float((s * s).sum())
    if left > _DIRECT * energy:
        return math.sqrt(left)
    scaled = u * s.to(u.dtype)
    rows = max(1, _CHUNK_ENTRIES // weight.shape[1])
    total = 0.0
    for begin in range(0, weight.shape[0], rows):
        difference = weight[begin : begin + rows] - scaled[begin : begin + rows] @ vh
        total += float(torch.linalg.vector_norm(difference, dtype=torch.float64)) ** 2
    return math.sqrt(total)


def spectral_bound(weight: Tensor, u: Tensor, s: Tensor, vh: Tensor, frobenius: float = math.inf) -> Tensor:
    """Upper bounds on ``||W - U S V^T||_2``, each with probability at least 1 - 1e-10.

    For a matrix B and r Gaussian vectors, ``||B||_2 <= a sqrt(2 / pi) max_i ||B w_i||`` fails with probability at most
    ``a^-r``. With ``B = (E E^T)^2 E`` the slack enters by its fifth root: the bound is 1.5 times the truth where one
    value dominates E, and up to 3 times where a thousand are equal.

    Args:
        weight: (batch, m, n).
        u: (batch, m, k).
        s: (batch, k).
        vh: (batch, k, n).
        frobenius: ``||W - U S V^T||_F`` as :func:`frobenius_error` has it, which bounds the spectral norm too.

    Returns:
        (batch,) float64, with what rounding may hide of either.

    Source: Halko, Martinsson & Tropp 2011, lemma 4.1 and section 6.
    """
    generator = torch.Generator(device="cpu").manual_seed(_SEED + 1)
    probes = torch.randn(weight.shape[-1], PROBES, generator=generator, dtype=torch.float64)
    scaled = u * s.to(u.dtype)[..., None, :]
    x = probes.to(weight.device, weight.dtype).expand(weight.shape[0], -1, -1)
    growth = torch.zeros(weight.shape[0], 1, PROBES, dtype=torch.float64, device=weight.device)
    for step in range(2 * _POWERS + 1):
        x = weight @ x - scaled @ (vh @ x) if step % 2 == 0 else (x.mT @ weight - (x.mT @ scaled) @ vh).mT
        norms = torch.linalg.vector_norm(x, dim=-2, keepdim=True, dtype=torch.float64)
        growth = growth + norms.log()
        x = x / torch.where(norms > 0, norms, 1.0).to(x.dtype)
    largest = growth.amax((-2, -1)) + math.log(_SAFETY * math.sqrt(2 / math.pi))
    rounding = 8 * torch.finfo(weight.dtype).eps * s[..., :1].amax(-1)
    return (largest / (2 * _POWERS + 1)).exp().clamp(max=(1 + _MEASURED) * frobenius) + rounding
