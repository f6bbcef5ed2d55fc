"""Sums over the chunks of a tall panel within the launch that forms them: whoever comes last adds up, in one order."""

from __future__ import annotations

import triton
import triton.language as tl

from spectrum_fast.measure.ops.band import workspace

FAN = tl.constexpr(workspace.FAN)


@triton.jit
def _add_up(target, source, stride, count, WIDTH: tl.constexpr):
    """``count`` blocks from ``source`` on, ``stride`` numbers apart, past the cache of a multiprocessor, into one.

    Two are under way together, where the registers hold them: one alone would wait as long.
    """
    here = tl.arange(0, WIDTH)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    some = tl.arange(0, 1 if WIDTH == 64 else 2)[:, None, None]
    total = tl.zeros([WIDTH, WIDTH], dtype=tl.float64)
    for first in range(0, count, 1 if WIDTH == 64 else 2):
        blocks = source + (first + some) * stride + here[None, :, :]
        total += tl.sum(tl.load(blocks, mask=first + some < count, other=0.0, cache_modifier=".cg"), axis=0)
    tl.store(target + here, total)


@triton.jit
def add_chunks(partials, arrived, total, plane, chunk, chunks, most, blocks, products, WIDTH: tl.constexpr):
    """Add up what ``chunks`` programs of a matrix have stored, once all of them have; the same bits in every run.

    The last of FAN programs adds up theirs, and the last of those who did so what they found.

    Args:
        partials: (m, most, products, WIDTH, WIDTH), this program's part stored.
        arrived: (m, 1 + most / FAN) zeros, which are zeros again in the end.
        total: ``blocks`` matrices (m, WIDTH, WIDTH), ``plane`` numbers apart.
        plane: of ``total``.
        chunk: of this program.
        chunks: how many there are.
        most: there is memory for.
        blocks: of a chunk that are added up.
        products: there is memory for.
        WIDTH: of a block.
    """
    batch = tl.program_id(1).to(tl.int64)
    size = WIDTH * WIDTH
    partials += batch * most * products * size
    arrived += batch * (1 + (most + FAN - 1) // FAN)
    total += batch * size
    group = chunk // FAN
    first = group * FAN
    members = tl.minimum(chunks - first, FAN)
    groups = (chunks + FAN - 1) // FAN
    tl.debug_barrier()  # all of this program's part is stored
    if tl.atomic_add(arrived + 1 + group, 1) == members - 1:
        tl.store(arrived + 1 + group, 0)
        for block in range(blocks):
            begin = partials + (first * products + block) * size
            _add_up(begin, begin, products * size, members, WIDTH)
        tl.debug_barrier()
        if tl.atomic_add(arrived, 1) == groups - 1:
            tl.store(arrived, 0)
            for block in range(blocks):
                _add_up(total + block * plane, partials + block * size, FAN * products * size, groups, WIDTH)
