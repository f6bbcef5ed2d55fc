"""A plan cut into pieces of work that processes take one after the other: neighbours together, the largest first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from spectrum_fast.read.formats.weight_plan import WeightPlan

CHUNK_BYTES = 256 << 20
"""Most bytes of a chunk of several weights: long enough to be read in one sweep, short enough to be done twice."""
_SHARES = 32
"""Chunks a process, about: the last one to finish is late by one chunk at most."""
_BYTE_WORK = 64.0
"""Multiply-adds that reading and decoding one byte is worth, so that thin matrices are not free."""

Span = tuple[int, int]
"""First and one past the last index of consecutive weights of a plan."""


def work_of(weight: WeightPlan) -> float:
    """Multiply-adds to score a weight, about: ``m n min(m, n)`` for its Gram, and something for every byte.

    Packed codes are taken by their stored shape, a vector as one row.
    """
    *rows, columns = weight.main.shape
    count = math.prod(rows)
    return float(count * columns * min(count, columns)) + _BYTE_WORK * weight.nbytes


def cut_chunks(
    weights: Sequence[WeightPlan], wanted: Iterable[int], processes: int, *, chunk_bytes: int = CHUNK_BYTES
) -> list[tuple[Span, ...]]:
    """Cut work for ``processes`` processes.

    Weights of one chunk are neighbours in file order, so that a chunk is read nearly in one sweep. Chunks come with the
    largest first, by powers of two of their work, and in file order among those of about the same size.

    Args:
        weights: the weights of a plan, in file order.
        wanted: indices of those to do, ascending.
        processes: that will share them.
        chunk_bytes: most bytes of a chunk of several weights.

    Returns:
        The chunks; each wanted index is in exactly one of them.
    """
    indices = list(wanted)
    most_work = sum(work_of(weights[index]) for index in indices) / (processes * _SHARES)
    chunks: list[list[int]] = []
    work = size = 0.0
    for index in indices:
        more, more_bytes = work_of(weights[index]), weights[index].nbytes
        if not chunks or work + more > most_work or size + more_bytes > chunk_bytes:
            chunks.append([])
            work = size = 0.0
        chunks[-1].append(index)
        work += more
        size += more_bytes

    def order(chunk: list[int]) -> tuple[int, int]:
        return -math.frexp(sum(work_of(weights[index]) for index in chunk))[1], chunk[0]

    return [spans_of(chunk) for chunk in sorted(chunks, key=order)]


def spans_of(indices: Sequence[int]) -> tuple[Span, ...]:
    """Ascending indices as spans.

    >>> spans_of([0, 1, 2, 5])
    ((0, 3), (5, 6))
    """
    spans: list[list[int]] = []
    for index in indices:
        if spans and spans[-1][1] == index:
            spans[-1][1] += 1
        else:
            spans.append([index, index + 1])
    return tuple((begin, end) for begin, end in spans)


def indices_of(spans: Iterable[Sequence[int]]) -> list[int]:
    """What :func:`spans_of` was given.

    >>> indices_of(((0, 3), (5, 6)))
    [0, 1, 2, 5]
    """
    return [index for begin, end in spans for index in range(begin, end)]
