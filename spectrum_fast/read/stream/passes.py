"""Passes over a weight that is read by blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.dtypes import torch_dtype
from spectrum_fast.read.formats.weight_plan import WeightPlan
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
    """Reads one weight by blocks, pass after pass, through the ring of a pipeline.

    Args:
        pipeline: reads; nothing else of it may be in flight.
        plan: of a weight that may come in blocks.
    """

    def __init__(self, pipeline: Pipeline, plan: WeightPlan) -> None:
        self._pipeline, self._plan, self._refs = pipeline, plan, plan.refs
        self._dtypes = [torch_dtype(ref) for ref in plan.refs]
        self._passes: list[Generator[Tensor, None, None]] = []
        self._closed = False

    def matrix(self) -> BlockMatrix:
        """The matrix, of which nothing is read yet."""
        device = torch.device(self._pipeline.options.device)
        dtype = self._decoded([torch.empty(1, 1, dtype=dtype) for dtype in self._dtypes]).dtype
        return BlockMatrix(matrix_shape(self._plan.main), dtype, device, self._open_pass)

    def close(self) -> None:
        """Give all memory back; passes that were begun cannot go on."""
        self._closed = True
        for begun in self._passes:
            begun.close()
        self._passes.clear()

    def _open_pass(self) -> Iterator[Tensor]:
        if self._closed:
            raise UsageError(
                f"tensor {shorten(self._plan.main.name)}: read after it was released; keep the weight in hand"
            )
        begun = self._read_blocks()
        self._passes.append(begun)
        return begun

    def _read_blocks(self) -> Generator[Tensor, None, None]:
        pipeline = self._pipeline
        most = min(MAX_BLOCK_BYTES, pipeline.ring.capacity_bytes // (BLOCKS_IN_FLIGHT + 1) - 3 * PAGE_BYTES)
        plans = plan_blocks(self._refs, max(PAGE_BYTES, most), direct=pipeline.direct)
        waiting: BlockPlan | None = None
        pending: deque[tuple[BlockPlan, Batch]] = deque()
        try:
            while True:
                while len(pending) < BLOCKS_IN_FLIGHT and (waiting := waiting or next(plans, None)) is not None:
                    batch = pipeline.start(waiting.refs, waiting.layout, waiting.tasks)
                    if batch is None:
                        break
                    pending.append((waiting, batch))
                    waiting = None
                if not pending:
                    if waiting is not None:
                        raise too_large(self._plan.main, waiting.layout.nbytes, pipeline.ring.capacity_bytes)
                    return
                block, batch = pending[0]
                pipeline.await_batch(batch)
                for ref in self._refs:
                    batch.require_read(ref)
                pairs = zip(block.refs, self._dtypes, strict=True)
                yield self._decoded([batch.tensor(ref, dtype).to(pipeline.options.device) for ref, dtype in pairs])
                pending.popleft()
                pipeline.dispose(batch)
        finally:
            for _, batch in pending:
                pipeline.dispose(batch)

    def _decoded(self, parts: Sequence[Tensor]) -> Tensor:
        """What a block of each stored matrix comes to."""
        if self._plan.decoder is None:
            return parts[0]
        found = self._plan.decoder(parts[0], **dict(zip(self._plan.companions, parts[1:], strict=True)))
        assert isinstance(found, Tensor)  # noqa: S101 - what acts entry by entry gives numbers
        return found
