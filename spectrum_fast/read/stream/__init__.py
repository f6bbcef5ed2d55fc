"""TensorRef or WeightPlan -> tensors in memory, read ahead into a bounded buffer; see docs/streaming.md."""

from __future__ import annotations

from spectrum_fast.read.stream.loader import load_tensor, load_weight
from spectrum_fast.read.stream.options import StreamOptions
from spectrum_fast.read.stream.pipeline import StreamStatistics
from spectrum_fast.read.stream.weights import LoadedWeight, WeightStream, required_buffer_bytes, stream_weights

__all__ = [
    "LoadedWeight",
    "StreamOptions",
    "StreamStatistics",
    "WeightStream",
    "load_tensor",
    "load_weight",
    "required_buffer_bytes",
    "stream_weights",
]
