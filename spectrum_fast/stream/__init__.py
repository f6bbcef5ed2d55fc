"""TensorRef or WeightPlan -> tensors in memory, read ahead of their use."""

from __future__ import annotations

from spectrum_fast.stream.loader import LoadedTensor, load_tensor, stream_tensors
from spectrum_fast.stream.weights import LoadedWeight, load_weight, stream_weights

__all__ = ["LoadedTensor", "LoadedWeight", "load_tensor", "load_weight", "stream_tensors", "stream_weights"]
