"""TensorRef -> tensor in memory, read ahead of its use."""

from __future__ import annotations

from spectrum_fast.stream.loader import LoadedTensor, load_tensor, stream_tensors

__all__ = ["LoadedTensor", "load_tensor", "stream_tensors"]
