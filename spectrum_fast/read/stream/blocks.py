"""Matrices larger than their share of the ring: read in blocks along the long side, as often as they are asked for.

Blocks of a tall matrix (m >= n) are runs of rows, which lie together in the file. A wide one (m < n) is cut into column
blocks, so that ``W W^T = sum_b W_b W_b^T`` takes one pass over the bytes; each row of a block is a read of its own. The
other way, ``G[i, j] = W_i W_j^T`` over pairs of row blocks, needs two blocks in memory and reads ``(p^2 - p + 2) / 2p``
times the file for p blocks (1.75 times for four of them), so column blocks read fewest bytes: each byte once a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.stream.layout import (
    ALIGNMENT,
    Extent,
    Layout,
    Piece,
    Task,
    element_bytes,
    group_pieces,
    lay_out,
)
from spectrum_fast.read.stream.ring import PAGE_BYTES

_STEP = 64
"""Blocks are a multiple of this where they are that long: the widest strip of a Gram kernel."""


@dataclass(frozen=True)
class BlockPlan:
    """The same block of each matrix: their shape, and how they are read.

    Attributes:
        refs: the blocks as if each were stored in one piece, which a column block is not.
        layout: where they go.
        tasks: the reads.
    """

    refs: Sequence[TensorRef]
    layout: Layout
    tasks: Sequence[Task]


def matrix_shape(ref: TensorRef) -> tuple[int, int]:
    """Rows and columns of a stored matrix; a vector is one row."""
    return (1, ref.shape[0]) if len(ref.shape) == 1 else (ref.shape[0], ref.shape[1])


def plan_blocks(refs: Sequence[TensorRef], block_bytes: int, *, direct: bool = False) -> Iterator[BlockPlan]:
    """Cut stored matrices of one shape into nearly equal blocks along their long side.

    Column blocks are read through the page cache even where ``direct`` is set: their rows begin anywhere in a page.

    Args:
        refs: plain matrices or vectors, whose blocks are wanted together.
        block_bytes: bytes of a block of all of them, at most (at least one row or column all the same).
        direct: lay row blocks out for O_DIRECT.
    """
    rows, columns = matrix_shape(refs[0])
    items = [element_bytes(ref) for ref in refs]
    if rows >= columns:
        for first, count in _cut_evenly(rows, block_bytes // (columns * sum(items)), _STEP):
            parts = [
                replace(
                    ref,
                    shape=(count, columns),
                    begin=ref.begin + first * columns * item,
                    nbytes=count * columns * item,
                )
                for ref, item in zip(refs, items, strict=True)
            ]
            layout = lay_out(parts, direct=direct)
            yield BlockPlan(parts, layout, layout.tasks())
        return
    step = max(_STEP, PAGE_BYTES // min(items))
    for first, count in _cut_evenly(columns, block_bytes // (rows * sum(items)), step):
        parts = [
            replace(ref, shape=(rows, count), begin=ref.begin + first * item, nbytes=rows * count * item)
            for ref, item in zip(refs, items, strict=True)
        ]
        extents, pieces, place = [], [], 0
        for part in sorted(dict.fromkeys(parts), key=lambda part: part.begin):
            item = part.nbytes // (rows * count)
            width, length = count * item, columns * item
            extents.append(Extent(part.file, part.begin, part.begin + part.nbytes, place))
            pieces += [
                Piece(part.file, part.begin + row * length, place + row * width, width, width) for row in range(rows)
            ]
            place = -(-(place + part.nbytes) // ALIGNMENT) * ALIGNMENT
        yield BlockPlan(parts, Layout(tuple(extents), place), group_pieces(pieces))


def _cut_evenly(length: int, most: int, step: int) -> Iterator[tuple[int, int]]:
    """(first, count) of nearly equal runs, at most ``most`` long, that cover ``length``; multiples of ``step``."""
    most = max(1, most)
    most = most // step * step or most
    count = -(-length // most)
    size = -(-length // count)
    size = min(most, -(-size // step) * step)
    for first in range(0, length, size):
        yield first, min(size, length - first)
