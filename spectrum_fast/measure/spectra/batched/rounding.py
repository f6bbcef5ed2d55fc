"""The rounding model of :mod:`spectrum_fast.measure.spectra.rounding` for a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.rounding import FLOOR, LARGEST, LEAST_SCALE, MEAN, OUTLIER, POINT, ROTATION, SMALL


@dataclass(frozen=True)
class BatchRounding:
    """Bounds on the rounding of each matrix; see ``spectra.rounding.Rounding``. Tensors (m, 1)."""

    point: Tensor
    mean: Tensor
    outlier: Tensor
    scale: Tensor
    absolute: Tensor
    eps: float

    def uncertainty(self, t: Tensor) -> Tensor:
        """Absolute uncertainty of one computed singular value near each t (m, s)."""
        small = (SMALL * self.scale).clamp(min=LEAST_SCALE)
        return self._shift(t, self.point * (1 + small / (small + t * t)))

    def largest_more(self, t: Tensor) -> Tensor:
        """What the uncertainty of the largest one of each matrix has more, if it is near t."""
        return LARGEST * self.eps * t

    def floor(self) -> Tensor:
        """Below these (m,), no singular value is trusted."""
        return FLOOR * self.uncertainty(torch.zeros_like(self.point))[:, 0]

    def mean_uncertainty(self, t: Tensor) -> Tensor:
        """Absolute uncertainty per singular value near each t (m, s) of a sum over many."""
        return self._shift(t, self.mean)

    def _shift(self, t: Tensor, eigenvalue_error: Tensor) -> Tensor:
        squared = t * t
        error = eigenvalue_error + self.outlier * squared * squared
        lowered = squared - error
        upwards = torch.maximum(t, torch.sqrt(squared + error) - t)
        return torch.where(lowered > 0, t - torch.sqrt(lowered.clamp(min=0)), upwards) + self.absolute


def estimate_batch_rounding(
    matrices: Tensor, norms: Tensor, rotated_rank: int = 0, s_max: Tensor | None = None
) -> BatchRounding:
    """Rounding of Gram and reduction, to be asked before the reduction.

    Args:
        matrices: (m, k, k) Gram matrices, float32.
        norms: (m,) their Frobenius norms.
        rotated_rank: rows at the top into which outliers were rotated.
        s_max: (m,) largest singular values, if rotated.
    """
    size = matrices.shape[1]
    eps = torch.finfo(matrices.dtype).eps
    bulk = norms
    if 0 < rotated_rank < size:
        bulk = torch.linalg.vector_norm(matrices[:, rotated_rank:], dim=(1, 2), dtype=torch.float64)
    unit = (eps * bulk / size**0.5)[:, None]
    absolute = torch.zeros_like(unit) if s_max is None else (ROTATION * eps * s_max / size**0.5)[:, None]
    return BatchRounding(POINT * unit, MEAN * unit, (OUTLIER * eps / norms)[:, None], unit / eps, absolute, eps)
