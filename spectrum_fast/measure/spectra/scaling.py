"""Matrices multiplied by exact powers of two, so that their squares neither overflow nor vanish."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def scale_exponent(max_abs: float, dtype: torch.dtype) -> int:
    """Power of two to divide a matrix by so that its squares neither overflow nor vanish; 0 where they do not."""
    if dtype == torch.float16 or not math.isfinite(max_abs) or max_abs == 0.0:
        return 0  # squares of float16 are always safe in float32
    exponent = math.frexp(max_abs)[1]
    return 0 if -16 <= exponent <= 16 else exponent - 1  # 2^1024 is no float64


def scale_by_power_of_two(matrix: Tensor, exponent: int) -> Tensor:
    """``2^exponent W`` in the same dtype, exactly wherever the result is a normal number."""
    half = exponent // 2  # two steps, so that neither factor overflows
    return matrix * math.ldexp(1.0, half) * math.ldexp(1.0, exponent - half)
