"""The tiles of a symmetric product: which one a program forms, and where it is stored."""

from __future__ import annotations

import triton
import triton.language as tl

GROUP = 8
"""Tile rows that run together: 8 x 16 tiles of 128 keep 132 multiprocessors on about 24 operand tiles."""


@triton.jit
def triangle_row(index):
    """The row r with r (r + 1) / 2 <= index < (r + 1) (r + 2) / 2: float32 root, corrected in integers."""
    r = ((tl.sqrt(8.0 * index.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    r = tl.where(r * (r + 1) // 2 > index, r - 1, r)
    return tl.where((r + 1) * (r + 2) // 2 <= index, r + 1, r)


@triton.jit
def tile_of(index, tiles, GROUP: tl.constexpr):
    """(row, column) of the index-th tile on or below the diagonal: GROUP tile rows at a time, column by column."""
    first = triangle_row(index) // GROUP * GROUP
    rows = tl.minimum(tiles - first, GROUP)
    rest = index - first * (first + 1) // 2
    corner = rest - first * rows
    corner_row = triangle_row(tl.maximum(corner, 0))
    in_corner = corner >= 0
    row = tl.where(in_corner, first + corner_row, first + rest % rows)
    column = tl.where(in_corner, first + corner - corner_row * (corner_row + 1) // 2, rest // rows)
    return row, column


@triton.jit
def tile_pointers(weight, i, j, p, k, stride, ALONG_DEPTH: tl.constexpr, DEPTH: tl.constexpr):
    """Operands (i, p) and (p, j) at p < DEPTH, and how far to go for the next ones.

    Rows past the end wrap to valid ones: their products are never stored.
    """
    i = (i % k).to(tl.int64)
    j = (j % k).to(tl.int64)
    if ALONG_DEPTH:
        left = weight + i[:, None] * stride + p[None, :]
        right = weight + j[None, :] * stride + p[:, None]
    else:
        left = weight + i[:, None] + p[None, :].to(tl.int64) * stride
        right = weight + j[None, :] + p[:, None].to(tl.int64) * stride
    step = DEPTH if ALONG_DEPTH else DEPTH * stride.to(tl.int64)
    return left, right, step


@triton.jit
def store_tile(out, total, i, j, k, ADD: tl.constexpr):
    """Rows i and columns j of a (k, k) matrix, and mirrored, each entry of the lower half once; ADD adds to it."""
    inside = (i < k)[:, None] & (j < k)[None, :]
    i = i.to(tl.int64)[:, None]
    j = j.to(tl.int64)[None, :]
    if ADD:
        total += tl.load(out + i * k + j, mask=inside & (i >= j), other=0)
    tl.store(out + i * k + j, total, mask=inside & (i >= j))
    tl.store(out + j * k + i, total, mask=inside & (i > j))
