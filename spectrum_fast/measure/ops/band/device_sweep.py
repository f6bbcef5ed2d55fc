"""The kernels over the trailing matrix.

One takes the product A V, with or without the last panel's update in the same pass; one applies the updates of several
panels together.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectrum_fast.measure.ops.gram.device_tiles import tile_of


@triton.jit
def _load_halves(halves, offset, plane, inside, WIDEN: tl.constexpr):
    other: tl.constexpr = None if inside is None else 0.0
    high = tl.load(halves + offset, mask=inside, other=other)
    low = tl.load(halves + plane + offset, mask=inside, other=other)
    if WIDEN:
        high = high.to(tl.float32)
        low = low.to(tl.float32)
    return high, low


@triton.jit
def _product(a_high, a_low, b_high, b_low):
    """A B in three products, the small ones first.

    No sum goes on in the tensor cores from one block of columns to the next: their accumulator rounds towards zero
    (``ops/gram/triton.py``), which over 8192 columns would shrink A V by 3e-5 and leave no similarity.
    """
    small = tl.dot(a_low, b_high)
    small = tl.dot(a_high, b_low, small)
    return tl.dot(a_high, b_high, small)


@triton.jit(do_not_specialize=["index"])
def sweep_kernel(
    matrix,
    new,
    old,
    z,
    product,
    scale,
    n,
    index,
    plane,
    part,
    HALF_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PENDING: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """ROWS rows of A <- A - V Zᵀ - Z Vᵀ (``old``, ``z``), and this program's part of X = A V (``new``).

    Programs (row block, part of the columns, matrix): part s takes every splits-th block of COLUMNS columns. Halves of
    (n, WIDTH) arrays are ``plane`` numbers apart, parts of X ``part``. ``scale`` holds the scales of all matrices and
    then what takes them off again with V's, stored because the compiler's reciprocal is approximate.
    """
    batch = tl.program_id(2).to(tl.int64)
    splits = tl.num_programs(1)
    begin = (index + 1) * HALF_WIDTH
    i = begin + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    rows_in = (i < n)[:, None] & (c >= 0)[None, :]
    tall = (batch * n + i.to(tl.int64))[:, None] * WIDTH + c[None, :]
    if PENDING:
        v_high, v_low = _load_halves(old, tall, plane, rows_in, WIDEN)
        z_high, z_low = _load_halves(z, tall, plane, rows_in, WIDEN)
    up = tl.load(scale + batch)
    down = tl.load(scale + tl.num_programs(2) + batch)
    x = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for first in range(begin + tl.program_id(1) * COLUMNS, n, splits * COLUMNS):
        j = first + tl.arange(0, COLUMNS)
        across = (batch * n + j.to(tl.int64))[:, None] * WIDTH + c[None, :]
        columns_in = (j < n)[:, None] & (c >= 0)[None, :]
        inside = (i < n)[:, None] & (j < n)[None, :]
        entries = (batch * n + i.to(tl.int64))[:, None] * n + j[None, :]
        a = tl.load(matrix + entries, mask=inside, other=0.0)
        if PENDING:
            high, low = _load_halves(z, across, plane, columns_in, WIDEN)
            total = _product(v_high, v_low, tl.trans(high), tl.trans(low))
            high, low = _load_halves(old, across, plane, columns_in, WIDEN)
            total += _product(z_high, z_low, tl.trans(high), tl.trans(low))
            a -= total * down
            tl.store(matrix + entries, a, mask=inside)
        a *= up
        a_high = a.to(tl.float16)
        a_low = (a - a_high.to(tl.float32)).to(tl.float16)
        if WIDEN:
            a_high = a_high.to(tl.float32)
            a_low = a_low.to(tl.float32)
        high, low = _load_halves(new, across, plane, columns_in, WIDEN)
        x += _product(a_high, a_low, high, low)
    tl.store(product + tl.program_id(1).to(tl.int64) * part + tall, x * down, mask=rows_in)


@triton.jit
def _add_mirrored(matrix, more, row, column, n, TILE: tl.constexpr):
    """Add half a tile, from ``row`` and ``column`` on, to a matrix and mirrored, each entry of the lower half once.

    Places within the tile are told by 32 bits.
    """
    i = tl.arange(0, TILE)[:, None]
    j = tl.arange(0, TILE // 2)[None, :]
    inside = (i < n - row) & (j < n - column)
    beyond = row - column + i - j
    lower = matrix + row.to(tl.int64) * n + column + (i * n + j)
    more += tl.load(lower, mask=inside & (beyond >= 0), other=0)
    tl.store(lower, more, mask=inside & (beyond >= 0))
    tl.store(matrix + column.to(tl.int64) * n + row + (j * n + i), more, mask=inside & (beyond > 0))


@triton.jit(do_not_specialize=["n", "begin", "panels"])
def update_kernel(
    matrix,
    halves,
    scale,
    n,
    begin,
    panels,
    place,
    apart,
    plane,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """One TILE x TILE tile of A <- A - V Zᵀ - Z Vᵀ from row and column ``begin`` on, and its mirror image.

    Of ``panels`` panels, ``place`` numbers apart, each V and Z ``apart``, their halves ``plane``; the lower half of A
    is read and all of it written.
    """
    row_tile, column_tile = tile_of(tl.program_id(0), tl.cdiv(n - begin, TILE), GROUP)
    batch = tl.program_id(1).to(tl.int64)
    row, column = begin + row_tile * TILE, begin + column_tile * TILE
    c = tl.arange(0, WIDTH)[None, :]
    # Rows past the end wrap to valid ones: their products are never stored.
    down = ((row + tl.arange(0, TILE)) % n)[:, None] * WIDTH + c
    across = ((column + tl.arange(0, TILE)) % n)[:, None] * WIDTH + c
    halves += batch * n * WIDTH
    total = tl.zeros([TILE, TILE], dtype=tl.float32)
    for q in range(2 * panels):  # V Zᵀ and Z Vᵀ in turn
        left = q % 2 * apart
        high, low = _load_halves(halves + left, down, plane, None, WIDEN)
        other_high, other_low = _load_halves(halves + (apart - left), across, plane, None, WIDEN)
        total += _product(high, low, tl.trans(other_high), tl.trans(other_low))
        halves += q % 2 * place
    total *= -tl.load(scale + tl.num_programs(1) + batch)
    # By halves: addresses, what is there and what is added, of all of it, do not fit the registers.
    left, right = tl.split(total.reshape(TILE, 2, TILE // 2).permute(0, 2, 1))
    matrix += batch * n * n
    _add_mirrored(matrix, left, row, column, n, TILE)
    tl.debug_barrier()
    _add_mirrored(matrix, right, row, column + TILE // 2, n, TILE)
