"""The GPU's band reduction in torch operations, on any device: :data:`spectrum_fast.measure.ops.dispatch.MODEL`."""

from __future__ import annotations

from spectrum_fast.measure.ops.band.triton import reduce_to_band

__all__ = ["reduce_to_band"]
