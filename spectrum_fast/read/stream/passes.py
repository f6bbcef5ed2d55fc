"""Passes over a matrix that is read by blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.dtypes import torch_dtype
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.read.stream.batch import Batch
from spectrum_fast.read.stream.blocks import BlockPlan, matrix_shape, plan_blocks
from spectrum_fast.read.stream.pipeline import Pipeline, too_large
from spectrum_fast.read.stream.ring import PAGE_BYTES

BLOCKS_IN_FLIGHT = 3
"""One in use, two on their way."""
MAX_BLOCK_BYTES = 256 << 20
"""Longer blocks would not make the Gram product faster."""


class BlockReader:
    """Reads one matrix by blocks, pass after pass, through the ring of a pipeline.

    Args:
        pipeline: reads; nothing else of it may be in flight.
        ref: a plain matrix or vector.
    """

    def __init__(self, pipeline: Pipeline, ref: TensorRef) -> None:
        self._pipeline, self._ref = pipeline, ref
        self._dtype = torch_dtype(ref)
        self._passes: list[Generator[Tensor, None, None]] = []
        self._closed = False

    def matrix(self) -> BlockMatrix:
        """The matrix, of which nothing is read yet."""
        device = torch.device(self._pipeline.options.device)
        return BlockMatrix(matrix_shape(self._ref), self._dtype, device, self._open_pass)

    def close(self) -> None:
        """Give all memory back; passes that were begun cannot go on."""
        self._closed = True
        for begun in self._passes:
            begun.close()
        self._passes.clear()

    def _open_pass(self) -> Iterator[Tensor]:
        if self._closed:
            raise UsageError(f"tensor {shorten(self._ref.name)}: read after it was released; keep the weight in hand")
        begun = self._read_blocks()
        self._passes.append(begun)
        return begun

    def _read_blocks(self) -> Generator[Tensor, None, None]:
        pipeline = self._pipeline
        most = min(MAX_BLOCK_BYTES, pipeline.ring.capacity_bytes // (BLOCKS_IN_FLIGHT + 1) - 3 * PAGE_BYTES)
        plans = plan_blocks(self._ref, max(PAGE_BYTES, most), direct=pipeline.direct)
        waiting: BlockPlan | None = None
        pending: deque[tuple[BlockPlan, Batch]] = deque()
        try:
            while True:
                while len(pending) < BLOCKS_IN_FLIGHT and (waiting := waiting or next(plans, None)) is not None:
                    batch = pipeline.start([waiting.ref], waiting.layout, waiting.tasks)
                    if batch is None:
                        break
                    pending.append((waiting, batch))
                    waiting = None
                if not pending:
                    if waiting is not None:
                        raise too_large(self._ref, waiting.layout.nbytes, pipeline.ring.capacity_bytes)
                    return
                block, batch = pending[0]
                pipeline.await_batch(batch)
                batch.require_read(self._ref)
                yield batch.tensor(block.ref, self._dtype).to(pipeline.options.device)
                pending.popleft()
                pipeline.dispose(batch)
        finally:
            for _, batch in pending:
                pipeline.dispose(batch)
