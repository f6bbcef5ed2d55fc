"""Which bytes of which files are read in one go, and where in a region they land.

Tensors that lie side by side become one run, so that a thousand small experts and their scales are a few long reads.
Every run is cut into pieces of :data:`CHUNK_BYTES`, and small pieces are put together to tasks of about that size: a
thread is asked once for each task, never once for each tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address
from spectrum_fast.read.stream.ring import PAGE_BYTES

CHUNK_BYTES = 8 << 20
"""Bytes of one task: long enough for full speed, short enough to share out and to stop within a moment."""
GAP_BYTES = 64 << 10
"""A gap between two tensors up to this size is read along: norms and biases lie between the matrices."""
ALIGNMENT = 64
"""Of the first byte of a run in memory: a cache line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One positional read: ``nbytes`` bytes at ``offset`` (``needed`` must exist) to ``place`` in the region."""

    file: Address
    offset: int
    place: int
    nbytes: int
    needed: int


Task = Sequence[Piece]


@dataclass(frozen=True)
class Layout:
    """Everything that one region holds.

    Attributes:
        refs: the tensors that are wanted.
        places: those of them that have bytes, each with the offset in the region of its first one.
        tasks: the reads, cut and put together for the threads, in order.
        nbytes: size of the region.
        direct: whether the reads are set up for O_DIRECT.
    """

    refs: Sequence[TensorRef]
    places: Mapping[TensorRef, int]
    tasks: Sequence[Task]
    nbytes: int
    direct: bool = False

    @property
    def files(self) -> Iterable[Address]:
        """Those that are read, each once."""
        return dict.fromkeys(ref.file for ref in self.places)


def lay_out(refs: Sequence[TensorRef], *, direct: bool = False) -> Layout:
    """Merge neighbouring tensors to runs and give each run its place.

    Args:
        refs: tensors, from any files and in any order; the same one may come twice and is read once.
        direct: read whole pages to whole pages, so that O_DIRECT can do it; else the first tensor of each run is
            aligned, whatever its place in the file.
    """
    page = PAGE_BYTES if direct else 1
    by_file: dict[Address, list[TensorRef]] = {}
    for ref in refs:
        if ref.nbytes:
            by_file.setdefault(ref.file, []).append(ref)
    places: dict[TensorRef, int] = {}
    pieces: list[Piece] = []
    nbytes = 0
    for file, wanted in by_file.items():
        for run in _runs(sorted(wanted, key=lambda ref: ref.begin)):
            first, place = run[0].begin // page * page, round_up(nbytes, max(page, ALIGNMENT))
            needed = max(ref.begin + ref.nbytes for ref in run) - first
            whole = round_up(needed, page)
            places |= {ref: place + ref.begin - first for ref in run}
            for done in range(0, whole, CHUNK_BYTES):
                count = min(CHUNK_BYTES, whole - done)
                pieces.append(Piece(file, first + done, place + done, count, min(count, needed - done)))
            nbytes = place + whole
    return Layout(refs, places, group_pieces(pieces), nbytes, direct)


def region_bytes(nbytes: int) -> int:
    """Room that a run of ``nbytes`` bytes takes at most, padding included.

    >>> region_bytes(1)
    12288
    """
    return round_up(nbytes, PAGE_BYTES) + 2 * PAGE_BYTES


def group_pieces(pieces: Iterable[Piece]) -> Sequence[Task]:
    """Put small pieces together until they reach :data:`CHUNK_BYTES`."""
    tasks: list[list[Piece]] = []
    size = 0
    for piece in pieces:
        if not tasks or size + piece.nbytes > CHUNK_BYTES:
            tasks.append([])
            size = 0
        tasks[-1].append(piece)
        size += piece.nbytes
    return tasks


def _runs(refs: Iterable[TensorRef]) -> list[list[TensorRef]]:
    """Sorted tensors of one file, in runs whose gaps are small."""
    runs: list[list[TensorRef]] = []
    end = 0
    for ref in refs:
        if not runs or ref.begin - end > GAP_BYTES:
            runs.append([])
        runs[-1].append(ref)
        end = max(end, ref.begin + ref.nbytes)
    return runs


def round_up(value: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-value // step) * step
