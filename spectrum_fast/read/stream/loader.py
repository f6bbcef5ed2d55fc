"""Read one tensor or one weight, now, into memory of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.read.checkpoint.dtypes import storage_dtype, torch_dtype
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream.layout import lay_out
from spectrum_fast.read.stream.options import MINIMUM_BUFFER_BYTES, StreamOptions
from spectrum_fast.read.stream.pipeline import Pipeline
from spectrum_fast.read.stream.ring import PAGE_BYTES
from spectrum_fast.read.stream.weights import LoadedWeight


def load_tensor(ref: TensorRef) -> Tensor:
    """Read one tensor.

    Args:
        ref: a tensor of dtype F64, F32, F16 or BF16.

    Returns:
        A contiguous CPU tensor of ``ref.shape``; it owns its memory.

    Raises:
        UnsupportedDtypeError: the storage type is not decoded.
        CheckpointError: the file cannot be read, is shorter than its header said, or has changed since.
    """
    return _load([(ref, torch_dtype(ref))])[0][0]


def load_weight(plan: WeightPlan) -> LoadedWeight:
    """Read one weight whole, whatever its size; its tensors own their memory.

    Raises:
        UnsupportedDtypeError, CheckpointError: as :func:`spectrum_fast.read.stream.stream_weights`.
    """
    main = storage_dtype(plan.main) if plan.decoder else torch_dtype(plan.main)
    companions = [(ref, storage_dtype(ref)) for ref in plan.companions.values()]
    tensors, seconds = _load([(plan.main, main), *companions])
    return LoadedWeight(plan, tensors[0], dict(zip(plan.companions, tensors[1:], strict=True)), seconds)


def _load(wanted: list[tuple[TensorRef, torch.dtype]]) -> tuple[list[Tensor], float]:
    """The tensors, and the seconds it took to read them. The memory of the ring lives as long as they do."""
    refs = [ref for ref, _ in wanted]
    layout = lay_out(refs)
    buffer_bytes = max(MINIMUM_BUFFER_BYTES, layout.nbytes + PAGE_BYTES)
    pipeline = Pipeline(StreamOptions(buffer_bytes=buffer_bytes, threads=0, poison=False))
    try:
        batch = pipeline.start(refs, layout, layout.tasks())
        if batch is None:
            raise MemoryError(f"a ring of {buffer_bytes} bytes has no room for {layout.nbytes}")
        pipeline.await_batch(batch)
        for ref in refs:
            batch.require_read(ref)
        return [batch.tensor(ref, dtype) for ref, dtype in wanted], batch.read_seconds
    finally:
        pipeline.close()
