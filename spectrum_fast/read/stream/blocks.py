"""Matrices larger than their share of the ring: read in blocks along the long side, as often as they are asked for.

Blocks of a tall matrix (m >= n) are runs of rows, which lie together in the file. A wide one (m < n) is cut into column
blocks, so that ``W W^T = sum_b W_b W_b^T`` takes one pass over the bytes; each row of a block is a read of its own. The
other way, ``G[i, j] = W_i W_j^T`` over pairs of row blocks, needs two blocks in memory and reads ``(p^2 - p + 2) / 2p``
times the file for p blocks (1.75 times for four of them), so column blocks read fewest bytes: each byte once a pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.dtypes import storage_dtype
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.read.stream.batch import Batch
from spectrum_fast.read.stream.layout import ALIGNMENT, Layout, Piece, group_pieces, lay_out, round_up
from spectrum_fast.read.stream.pipeline import Pipeline, too_large
from spectrum_fast.read.stream.ring import PAGE_BYTES

_STEP = 64
"""Blocks are a multiple of this where they are that long: the widest strip of a Gram kernel."""
_IN_FLIGHT = 3
"""Blocks: one in use, two on their way."""
_MAX_BYTES = 256 << 20
"""Longer blocks would not make the Gram product faster."""


class BlockReader:
    """Reads one weight by blocks, pass after pass, through the ring of a pipeline.

    Args:
        pipeline: reads; nothing else of it may be in flight.
        plan: of a weight that may come in blocks.
    """

    def __init__(self, pipeline: Pipeline, plan: WeightPlan) -> None:
        self._pipeline, self._plan = pipeline, plan
        self._dtypes = [storage_dtype(ref) for ref in plan.refs]
        self._passes: list[Generator[Tensor, None, None]] = []
        self._closed = False

    def matrix(self) -> BlockMatrix:
        """The matrix, of which nothing is read yet."""
        device = torch.device(self._pipeline.options.device)
        dtype = self._decoded([torch.empty(1, 1, dtype=dtype) for dtype in self._dtypes]).dtype
        return BlockMatrix(_matrix_shape(self._plan.main), dtype, device, self._open_pass)

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
        most = min(_MAX_BYTES, pipeline.ring.capacity_bytes // (_IN_FLIGHT + 1) - 3 * PAGE_BYTES)
        layouts = lay_out_blocks(self._plan.refs, max(PAGE_BYTES, most), direct=pipeline.direct)
        waiting: Layout | None = None
        pending: deque[Batch] = deque()
        try:
            while True:
                while len(pending) < _IN_FLIGHT and (waiting := waiting or next(layouts, None)) is not None:
                    batch = pipeline.start(waiting)
                    if batch is None:
                        break
                    pending.append(batch)
                    waiting = None
                if not pending:
                    if waiting is not None:
                        raise too_large(self._plan.main, waiting.nbytes, pipeline.ring.capacity_bytes)
                    return
                batch = pending[0]
                batch.await_read(self._plan.refs)
                pairs = zip(batch.layout.refs, self._dtypes, strict=True)
                yield self._decoded([batch.tensor(ref, dtype).to(pipeline.options.device) for ref, dtype in pairs])
                pending.popleft()
                pipeline.dispose(batch)
        finally:
            for batch in pending:
                pipeline.dispose(batch)

    def _decoded(self, parts: Sequence[Tensor]) -> Tensor:
        """What a block of each stored matrix comes to."""
        if self._plan.decoder is None:
            return parts[0]
        found = self._plan.decoder(parts[0], **dict(zip(self._plan.companions, parts[1:], strict=True)))
        assert isinstance(found, Tensor)  # noqa: S101 - what acts entry by entry gives numbers
        return found


def _matrix_shape(ref: TensorRef) -> tuple[int, int]:
    """Rows and columns of a stored matrix; a vector is one row."""
    return (1, ref.shape[0]) if len(ref.shape) == 1 else (ref.shape[0], ref.shape[1])


def lay_out_blocks(refs: Sequence[TensorRef], block_bytes: int, *, direct: bool = False) -> Iterator[Layout]:
    """Cut stored matrices of one shape into nearly equal blocks along their long side.

    Column blocks are read through the page cache even where ``direct`` is set: their rows begin anywhere in a page.

    Args:
        refs: plain matrices or vectors, whose blocks are wanted together.
        block_bytes: bytes of a block of all of them, at most (at least one row or column all the same).
        direct: lay row blocks out for O_DIRECT.

    Returns:
        The same block of each matrix, as if it were stored in one piece, which a column block is not.
    """
    rows, columns = _matrix_shape(refs[0])
    items = [storage_dtype(ref).itemsize for ref in refs]
    is_tall = rows >= columns
    length, across = (rows, columns) if is_tall else (columns, rows)
    step = _STEP if is_tall else max(_STEP, PAGE_BYTES // min(items))
    for first, count in _cut_evenly(length, block_bytes // (across * sum(items)), step):
        parts = [
            replace(
                ref,
                shape=(count, columns) if is_tall else (rows, count),
                begin=ref.begin + first * item * (columns if is_tall else 1),
                nbytes=count * across * item,
            )
            for ref, item in zip(refs, items, strict=True)
        ]
        yield lay_out(parts, direct=direct) if is_tall else _lay_out_columns(parts, columns)


def _lay_out_columns(parts: Sequence[TensorRef], columns: int) -> Layout:
    """Blocks of columns out of rows of so many, each row of them a read of its own."""
    places: dict[TensorRef, int] = {}
    pieces: list[Piece] = []
    place = 0
    for part in sorted(dict.fromkeys(parts), key=lambda part: part.begin):
        rows, count = part.shape
        item = storage_dtype(part).itemsize
        width, length = count * item, columns * item
        places[part] = place
        pieces += [
            Piece(part.file, part.begin + row * length, place + row * width, width, width) for row in range(rows)
        ]
        place = round_up(place + part.nbytes, ALIGNMENT)
    return Layout(parts, places, group_pieces(pieces), place)


def _cut_evenly(length: int, most: int, step: int) -> Iterator[tuple[int, int]]:
    """(first, count) of nearly equal runs, at most ``most`` long, that cover ``length``; multiples of ``step``."""
    most = max(1, most)
    most = most // step * step or most
    count = -(-length // most)
    size = -(-length // count)
    size = min(most, -(-size // step) * step)
    for first in range(0, length, size):
        yield first, min(size, length - first)
