"""A plan cut into pieces of work for several processes: neighbours together, the largest first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spectrum_fast.read.formats.weight_plan import WeightPlan

CHUNK_BYTES = 256 << 20
"""Most bytes of a chunk of several weights: long enough to be read in one sweep, short enough to be done twice."""
_SHARES = 32
"""Chunks a process, about: the last one to finish is late by one chunk at most."""
_BYTE_WORK = 64.0
"""Multiply-adds that reading and decoding one byte is worth, so that thin matrices are not free."""


def work_of(weight: WeightPlan) -> float:
    """Multiply-adds to score a weight, about: ``m n min(m, n)`` for its Gram, and something for every byte.

    Packed codes are taken by their stored shape, a vector as one row.
    """
    *rows, columns = weight.main.shape
    count = math.prod(rows)
    return float(count * columns * min(count, columns)) + _BYTE_WORK * weight.nbytes


def cut_chunks(
    weights: Sequence[WeightPlan], processes: int, *, chunk_bytes: int = CHUNK_BYTES, least_work: float = 0.0
) -> list[tuple[WeightPlan, ...]]:
    """Cut work for ``processes`` processes.

    Weights of one chunk are neighbours, so that a chunk is read nearly in one sweep. The largest chunks come first, by
    powers of two of their work, and in file order among those of about the same size.

    Args:
        weights: what is to be done, in file order.
        processes: that will share it.
        chunk_bytes: most bytes of a chunk of several weights.
        least_work: work that a chunk may have however many processes there are, where a chunk has its own price.

    Returns:
        The chunks; each weight is in exactly one of them.
    """
    most_work = max(sum(map(work_of, weights)) / (processes * _SHARES), least_work)
    chunks: list[list[WeightPlan]] = []
    load, size = 0.0, 0
    for weight in weights:
        if not chunks or load + work_of(weight) > most_work or size + weight.nbytes > chunk_bytes:
            chunks.append([])
            load, size = 0.0, 0
        chunks[-1].append(weight)
        load += work_of(weight)
        size += weight.nbytes
    return sorted(map(tuple, chunks), key=lambda chunk: -math.frexp(sum(map(work_of, chunk)))[1])
