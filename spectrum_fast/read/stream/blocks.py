"""A matrix that is larger than its share of the ring: read in blocks along its long side, as often as it is asked for.

Blocks of a tall matrix (m >= n) are runs of rows, which lie together in the file. A wide one (m < n) is cut into column
blocks, so that ``W W^T = sum_b W_b W_b^T`` takes one pass over the bytes; each row of a block is a read of its own. The
other way, ``G[i, j] = W_i W_j^T`` over pairs of row blocks, needs two blocks in memory and reads ``(p^2 - p + 2) / 2p``
times the file for p blocks (1.75 times for four of them), so column blocks read fewest bytes: each byte once a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.stream.layout import Extent, Layout, Piece, Task, element_bytes, group_pieces, lay_out
from spectrum_fast.read.stream.ring import PAGE_BYTES

_STEP = 64
"""Blocks are a multiple of this where they are that long: the widest strip of a Gram kernel."""


@dataclass(frozen=True)
class BlockPlan:
    """One block: its shape, and how it is read.

    Attributes:
        ref: the block as if it were stored in one piece, which a column block is not.
        layout: where it goes.
        tasks: the reads.
    """

    ref: TensorRef
    layout: Layout
    tasks: Sequence[Task]


def matrix_shape(ref: TensorRef) -> tuple[int, int]:
    """Rows and columns of a stored matrix; a vector is one row."""
    return (1, ref.shape[0]) if len(ref.shape) == 1 else (ref.shape[0], ref.shape[1])


def plan_blocks(ref: TensorRef, block_bytes: int, *, direct: bool = False) -> Iterator[BlockPlan]:
    """Cut a stored matrix into nearly equal blocks along its long side.

    Column blocks are read through the page cache even where ``direct`` is set: their rows begin anywhere in a page.

    Args:
        ref: a plain matrix or vector.
        block_bytes: bytes of a block, at most (at least one row or column all the same).
        direct: lay row blocks out for O_DIRECT.
    """
    rows, columns = matrix_shape(ref)
    item = element_bytes(ref)
    if rows >= columns:
        for first, count in _cut_evenly(rows, block_bytes // (columns * item), _STEP):
            part = replace(
                ref,
                shape=(count, columns),
                begin=ref.begin + first * columns * item,
                nbytes=count * columns * item,
            )
            layout = lay_out([part], direct=direct)
            yield BlockPlan(part, layout, layout.tasks())
        return
    for first, count in _cut_evenly(columns, block_bytes // (rows * item), max(_STEP, PAGE_BYTES // item)):
        width = count * item
        begin = ref.begin + first * item
        part = replace(ref, shape=(rows, count), begin=begin, nbytes=rows * width)
        pieces = (Piece(ref.file, begin + row * columns * item, row * width, width, width) for row in range(rows))
        layout = Layout((Extent(ref.file, begin, begin + rows * width, 0),), rows * width)
        yield BlockPlan(part, layout, group_pieces(pieces))


def _cut_evenly(length: int, most: int, step: int) -> Iterator[tuple[int, int]]:
    """(first, count) of nearly equal runs, at most ``most`` long, that cover ``length``; multiples of ``step``."""
    most = max(1, most)
    most = most // step * step or most
    count = -(-length // most)
    size = -(-length // count)
    size = min(most, -(-size // step) * step)
    for first in range(0, length, size):
        yield first, min(size, length - first)
