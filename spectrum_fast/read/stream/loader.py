"""Read one tensor or one weight, now, into memory of its own."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream.layout import lay_out
from spectrum_fast.read.stream.options import MINIMUM_BUFFER_BYTES, StreamOptions
from spectrum_fast.read.stream.pipeline import Pipeline
from spectrum_fast.read.stream.ring import PAGE_BYTES
from spectrum_fast.read.stream.weights import LoadedWeight, made_of


def load_tensor(ref: TensorRef) -> Tensor:
    """Read one tensor of dtype F64, F32, F16 or BF16; a contiguous CPU tensor that owns its memory.

    Raises:
        UnsupportedDtypeError: the storage type is not decoded.
        CheckpointError: the file cannot be read, is shorter than its header said, or has changed since.
    """
    main = load_weight(WeightPlan(ref.name, ref.name, ref)).main
    assert isinstance(main, Tensor)  # noqa: S101 - nothing here comes in blocks
    return main


def load_weight(plan: WeightPlan) -> LoadedWeight:
    """Read one weight whole, whatever its size. The memory of the ring lives as long as its tensors do.

    Raises:
        UnsupportedDtypeError, CheckpointError: as :func:`spectrum_fast.read.stream.stream_weights`.
    """
    layout = lay_out(plan.refs)
    buffer_bytes = max(MINIMUM_BUFFER_BYTES, layout.nbytes + PAGE_BYTES)
    pipeline = Pipeline(StreamOptions(buffer_bytes=buffer_bytes, threads=0, poison=False))
    try:
        batch = pipeline.start(layout)
        assert batch is not None  # noqa: S101 - the ring is as large as what it holds
        batch.await_read(plan.refs)
        return made_of(plan, batch, batch.read_seconds)
    finally:
        pipeline.close()
