"""Which bytes of which files are read in one go, and where in a region they land.

Tensors that lie side by side become one extent, so that a thousand small experts and their scales are a few long reads.
Every extent is cut into pieces of :data:`CHUNK_BYTES`, and small pieces are put together to tasks of about that size: a
thread is asked once for each task, never once for each tensor.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spectrum_fast.read.checkpoint.dtypes import DTYPE_BITS
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address
from spectrum_fast.read.stream.ring import PAGE_BYTES

CHUNK_BYTES = 8 << 20
"""Bytes of one task: long enough for full speed, short enough to share out and to stop within a moment."""
GAP_BYTES = 64 << 10
"""A gap between two tensors up to this size is read along: norms and biases lie between the matrices."""
ALIGNMENT = 64
"""Of the first byte of an extent in memory: a cache line."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of one file.

    Attributes:
        file: where they lie.
        begin: offset in the file of the first byte that is wanted.
        end: offset behind the last one.
        place: offset in the region at which the byte ``begin`` is read.
        pad: bytes before ``begin`` that are read along, for O_DIRECT.
        direct: whether begin, end and place are set up for O_DIRECT.
    """

    file: Address
    begin: int
    end: int
    place: int
    pad: int = 0
    direct: bool = False

    @property
    def read_bytes(self) -> int:
        """Bytes to ask for, padding included."""
        count = self.pad + self.end - self.begin
        return -(-count // PAGE_BYTES) * PAGE_BYTES if self.direct else count


@dataclass(frozen=True, slots=True)
class Piece:
    """One positional read: ``nbytes`` bytes at ``offset`` (``needed`` must exist) to ``place`` in the region."""

    file: Address
    offset: int
    place: int
    nbytes: int
    needed: int
    direct: bool = False


Task = tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """Everything that one region holds.

    Attributes:
        refs: the tensors that are wanted.
        extents: what is read, by file, ascending and without overlaps in each.
        tasks: the reads, cut and put together for the threads, in order.
        nbytes: size of the region.
    """

    refs: Sequence[TensorRef]
    extents: Mapping[Address, Sequence[Extent]]
    tasks: Sequence[Task]
    nbytes: int

    def extent_of(self, ref: TensorRef) -> Extent:
        """The extent that holds a tensor."""
        extents = self.extents[ref.file]
        return extents[bisect_right(extents, ref.begin, key=lambda extent: extent.begin) - 1]


def lay_out(refs: Sequence[TensorRef], *, direct: bool = False) -> Layout:
    """Merge neighbouring tensors to extents and give each extent its place.

    Args:
        refs: tensors, from any files and in any order; the same one may come twice and is read once.
        direct: place the extents so that O_DIRECT can fill them (page for page); else so that the first tensor of each
            extent is aligned, whatever its place in the file.
    """
    by_file: dict[Address, list[tuple[int, int]]] = {}
    for ref in refs:
        if ref.nbytes:
            by_file.setdefault(ref.file, []).append((ref.begin, ref.begin + ref.nbytes))
    extents: dict[Address, list[Extent]] = {}
    cursor = 0
    for file, ranges in by_file.items():
        extents[file] = []
        for begin, end in _merge(sorted(ranges)):
            pad = begin % PAGE_BYTES if direct else 0
            place = round_up(cursor, PAGE_BYTES if direct else ALIGNMENT) + pad
            extent = Extent(file, begin, end, place, pad, direct)
            extents[file].append(extent)
            cursor = extent.place - extent.pad + extent.read_bytes
    pieces = (piece for found in extents.values() for extent in found for piece in _cut(extent))
    return Layout(refs, extents, group_pieces(pieces), cursor)


def region_bytes(nbytes: int) -> int:
    """Room that a run of ``nbytes`` bytes takes at most, padding included.

    >>> region_bytes(1)
    12288
    """
    return round_up(nbytes, PAGE_BYTES) + 2 * PAGE_BYTES


def element_bytes(ref: TensorRef) -> int:
    """Bytes of an element of a tensor, 1 for packed ones."""
    return max(1, DTYPE_BITS.get(ref.dtype, 8) // 8)


def group_pieces(pieces: Iterable[Piece]) -> list[Task]:
    """Put small pieces together until they reach :data:`CHUNK_BYTES`."""
    tasks: list[Task] = []
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        if group and size + piece.nbytes > CHUNK_BYTES:
            tasks.append(tuple(group))
            group, size = [], 0
        group.append(piece)
        size += piece.nbytes
    if group:
        tasks.append(tuple(group))
    return tasks


def _merge(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of sorted byte ranges whose gaps are small."""
    merged: list[tuple[int, int]] = []
    for begin, end in ranges:
        if merged and begin - merged[-1][1] <= GAP_BYTES:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _cut(extent: Extent) -> Iterable[Piece]:
    first, wanted = extent.begin - extent.pad, extent.end - extent.begin + extent.pad
    for done in range(0, extent.read_bytes, CHUNK_BYTES):
        nbytes = min(CHUNK_BYTES, extent.read_bytes - done)
        yield Piece(
            file=extent.file,
            offset=first + done,
            place=extent.place - extent.pad + done,
            nbytes=nbytes,
            needed=min(nbytes, wanted - done),
            direct=extent.direct,
        )


def round_up(value: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-value // step) * step
