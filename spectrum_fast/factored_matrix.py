"""A matrix that is known as the product of two thin ones: what a low-rank adapter adds to a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class FactoredMatrix:
    """``left @ right``, (m, r) times (r, n), both in float64: of rank r at most, however large it is.

    Attributes:
        left: (m, r).
        right: (r, n).
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        """Where the factors lie."""
        return self.left.device

    def whole(self) -> Tensor:
        """The product, (m, n)."""
        return self.left @ self.right

    def core(self) -> Tensor:
        """``R_l R_r^T`` of ``left = Q_l R_l`` and ``right^T = Q_r R_r``: all singular values but zeros are its own."""
        return torch.linalg.qr(self.left, "r").R @ torch.linalg.qr(self.right.T, "r").R.T

    def extent(self) -> tuple[float, float]:
        """A bound on the largest entry (NaN where a factor is not finite; 0 if all are zero), and ``||.||_F^2``."""
        largest = [float(factor.abs().max()) for factor in (self.left, self.right)]
        total = float(((self.left.T @ self.left) * (self.right @ self.right.T)).sum())
        bound = largest[0] * largest[1] * self.left.shape[1]
        return (bound if total > 0 else 0.0) if math.isfinite(bound) and math.isfinite(total) else math.nan, total

    def scaled(self, exponent: int) -> FactoredMatrix:
        """The product times two to the exponent, half of it on each side, so that neither overflows."""
        half = exponent // 2
        return replace(self, left=self.left * 2.0**half, right=self.right * 2.0 ** (exponent - half))
