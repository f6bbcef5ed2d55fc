"""The GPU's band reduction in torch operations, on any device: :data:`spectrum_fast.measure.ops.dispatch.MODEL`."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast.measure.ops.band.reference import reduce_in_torch, turn_back

__all__ = ["reduce_to_band", "turn_back"]


def reduce_to_band(matrices: Tensor, half_width: int, carried: Tensor | None = None, vectors: bool = False) -> Tensor:
    """Bands (m, n, b + 1), float32 matrices with products in float16 halves."""
    return reduce_in_torch(matrices, half_width, carried, split=None, vectors=vectors)
