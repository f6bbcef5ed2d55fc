"""Kernels over the rows of the tall panel: 64 rows a program, float64, products on the float64 matrix units.

Some work in place in global memory. Which thread of a program loads a number and which stores it is the compiler's
choice, so a barrier stands between the last load and the first store (tests/measure/ops/test_triton_compile.py looks
for it in the compiled program).
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectrum_fast.measure.ops.band import workspace
from spectrum_fast.measure.ops.band.device_sums import add_chunks

V_SCALE = tl.constexpr(workspace.V_SCALE)


@triton.jit
def _store_halves(halves, x, offset, plane, inside):
    """X as two float16 planes, ``plane`` numbers apart."""
    high = x.to(tl.float32).to(tl.float16)
    low = (x - high.to(tl.float64)).to(tl.float32).to(tl.float16)
    tl.store(halves + offset, high, mask=inside)
    tl.store(halves + plane + offset, low, mask=inside)


@triton.jit(do_not_specialize=["index", "pending", "chunks", "max_chunks", "products"])
def gather_kernel(
    matrix,
    band,
    panel,
    basis,
    z,
    partials,
    arrived,
    total,
    n,
    index,
    pending,
    place,
    chunks,
    max_chunks,
    products,
    HALF_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Programs below ``chunks``: 64 rows of P and their share of Pᵀ P; the last one: the diagonal block of the band.

    The updates of ``pending`` panels are applied to both, whose V and Z lie ``place`` numbers apart.
    """
    pid = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    column = index * HALF_WIDTH
    begin = column + HALF_WIDTH
    diagonal = pid == chunks
    end = tl.where(diagonal, begin, n)
    i = tl.where(diagonal, column, begin + pid * ROWS) + tl.arange(0, ROWS)
    j = tl.arange(0, WIDTH)
    tall = (batch * n + i.to(tl.int64))[:, None] * WIDTH + j[None, :]
    inside = (i < end)[:, None] & (j < HALF_WIDTH)[None, :]
    entries = (batch * n + i.to(tl.int64))[:, None] * n + (column + j)[None, :]
    p = tl.load(matrix + entries, mask=inside, other=0.0).to(tl.float64)
    # Operands in slices of 16, so that no two of them lie in registers at the same time.
    c = tl.arange(0, 16)
    use = (j < HALF_WIDTH)[:, None] & (c >= 0)[None, :]
    rows = (i < end)[:, None] & (c >= 0)[None, :]
    for first in range(0, pending * WIDTH, 16):  # one loop: two in one another are unrolled, and spill at width 64
        k = (first % WIDTH + c)[None, :]
        own = (batch * n + (column + j).to(tl.int64))[:, None] * WIDTH + k
        slices = (batch * n + i.to(tl.int64))[:, None] * WIDTH + k
        v = tl.load(basis + slices, mask=rows, other=0.0)
        p = tl.dot(-v, tl.trans(tl.load(z + own, mask=use, other=0.0)), p, out_dtype=tl.float64)
        v = tl.load(z + slices, mask=rows, other=0.0)
        p = tl.dot(-v, tl.trans(tl.load(basis + own, mask=use, other=0.0)), p, out_dtype=tl.float64)
        is_last = (first + 16) // WIDTH - first // WIDTH
        basis += is_last * place
        z += is_last * place
    if diagonal:
        distance = i[:, None] - (column + j)[None, :]
        target = (batch * n + (column + j).to(tl.int64))[None, :] * (HALF_WIDTH + 1) + distance
        tl.store(band + target, p.to(band.dtype.element_ty), mask=inside & (distance >= 0))
    else:
        tl.store(panel + tall, p, mask=(i < end)[:, None] & (j >= 0)[None, :])
        k = tl.arange(0, WIDTH)[:, None]
        sums = tl.dot(tl.trans(p), p, out_dtype=tl.float64)
        tl.store(partials + ((batch * max_chunks + pid) * products * WIDTH + k) * WIDTH + j[None, :], sums)
        add_chunks(partials, arrived, total, 0, pid, chunks, max_chunks, 1, products, WIDTH)


@triton.jit(do_not_specialize=["n", "begin", "max_chunks", "products"])
def orthonormalise_kernel(
    panel,
    basis,
    r1,
    w,
    partials,
    arrived,
    total,
    n,
    begin,
    max_chunks,
    products,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """64 rows of Q1 = P W + (P - P W R1) W and their share of Q1ᵀ Q1."""
    pid = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    i = begin + pid * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, WIDTH)[None, :]
    k = tl.arange(0, WIDTH)[:, None]
    tall = (batch * n + i.to(tl.int64))[:, None] * WIDTH + j
    inside = (i < n)[:, None] & (j >= 0)
    here = (batch * WIDTH + k) * WIDTH + j
    # Operands in slices of 16, so that no two of them lie in registers at the same time.
    c = tl.arange(0, 16)
    q = tl.zeros([ROWS, WIDTH], dtype=tl.float64)
    for first in range(0, WIDTH, 16):
        slices = (batch * n + i.to(tl.int64))[:, None] * WIDTH + (first + c)[None, :]
        p = tl.load(panel + slices, mask=(i < n)[:, None] & (c >= 0)[None, :], other=0.0)
        q += tl.dot(p, tl.load(w + (batch * WIDTH + first + c[:, None]) * WIDTH + j), out_dtype=tl.float64)
    tl.store(basis + tall, q, mask=inside)
    tl.debug_barrier()
    rest = tl.load(panel + tall, mask=inside, other=0.0)
    for first in range(0, WIDTH, 16):
        slices = (batch * n + i.to(tl.int64))[:, None] * WIDTH + (first + c)[None, :]
        x = tl.load(basis + slices, mask=(i < n)[:, None] & (c >= 0)[None, :], other=0.0)
        rest -= tl.dot(x, tl.load(r1 + (batch * WIDTH + first + c[:, None]) * WIDTH + j), out_dtype=tl.float64)
    q += tl.dot(rest, tl.load(w + here), out_dtype=tl.float64)
    tl.debug_barrier()
    tl.store(basis + tall, q, mask=inside)
    sums = tl.dot(tl.trans(q), q, out_dtype=tl.float64)
    tl.store(partials + ((batch * max_chunks + pid) * products * WIDTH + k) * WIDTH + j, sums)
    add_chunks(partials, arrived, total, 0, pid, tl.num_programs(0), max_chunks, 1, products, WIDTH)


@triton.jit
def _store_product(out, a, across, along, vectors, v, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Aᵀ V of ROWS rows: ``vectors`` columns of A ``across`` numbers apart, its rows ``along``; 16 rows at a time."""
    c = tl.arange(0, 16)
    j = tl.arange(0, WIDTH)
    total = tl.zeros([WIDTH, WIDTH], dtype=tl.float64)
    for first in range(0, ROWS, 16):
        i = first + c
        some = tl.load(
            a + j.to(tl.int64)[:, None] * across + i[None, :] * along,
            mask=(j < vectors)[:, None] & (i < rows)[None, :],
            other=0.0,
        )
        b = tl.load(v + i[:, None] * WIDTH + j[None, :], mask=(i < rows)[:, None] & (j >= 0)[None, :], other=0.0)
        total += tl.dot(some, b, out_dtype=tl.float64)
    tl.store(out, total)


@triton.jit(do_not_specialize=["n", "begin", "older", "max_chunks", "products"])
def form_basis_kernel(
    basis,
    halves,
    m,
    top,
    old_basis,
    old_z,
    carried,
    partials,
    arrived,
    cross,
    n,
    begin,
    older,
    place,
    plane,
    cross_plane,
    max_chunks,
    products,
    HALF_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
    CARRIED: tl.constexpr,
):
    """64 rows of V = [V_top; Q1_rest M], in place of Q1, and their share of its products.

    Those are, in ``cross``: V_kᵀ V and Z_kᵀ V of the ``older`` panels k whose updates wait (``place`` numbers apart),
    and x V of CARRIED vectors.
    """
    pid = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    i = begin + pid * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, WIDTH)[None, :]
    k = tl.arange(0, WIDTH)[:, None]
    tall = (batch * n + i.to(tl.int64))[:, None] * WIDTH + j
    inside = (i < n)[:, None] & (j >= 0)
    v = tl.dot(
        tl.load(basis + tall, mask=inside, other=0.0),
        tl.load(m + (batch * WIDTH + k) * WIDTH + j),
        out_dtype=tl.float64,
    )
    upper = (i < begin + HALF_WIDTH)[:, None] & inside
    v_top = tl.load(top + (batch * WIDTH + (i - begin)[:, None]) * WIDTH + j, mask=upper, other=0.0)
    v = tl.where(upper, v_top, v)
    tl.debug_barrier()
    tl.store(basis + tall, v, mask=inside)
    if SPLIT:
        _store_halves(halves, v * V_SCALE, tall, plane, inside)
    tl.debug_barrier()
    here = partials + ((batch * max_chunks + pid) * products * WIDTH + k) * WIDTH + j
    rows = batch * n + begin + pid * ROWS
    left = tl.minimum(n - begin - pid * ROWS, ROWS)
    for _ in range(older):
        _store_product(here, old_basis + rows * WIDTH, 1, WIDTH, WIDTH, basis + rows * WIDTH, left, WIDTH, ROWS)
        here += WIDTH * WIDTH
        _store_product(here, old_z + rows * WIDTH, 1, WIDTH, WIDTH, basis + rows * WIDTH, left, WIDTH, ROWS)
        here += WIDTH * WIDTH
        old_basis += place
        old_z += place
    blocks = 2 * older
    if CARRIED:
        x = carried + batch * CARRIED * n + begin + pid * ROWS
        _store_product(here, x, n, 1, CARRIED, basis + rows * WIDTH, left, WIDTH, ROWS)
        blocks += 1
    add_chunks(partials, arrived, cross, cross_plane, pid, tl.num_programs(0), max_chunks, blocks, products, WIDTH)


@triton.jit(do_not_specialize=["n", "begin", "splits", "older", "max_chunks", "products"])
def form_y_kernel(
    product,
    basis,
    z,
    t,
    old_basis,
    old_z,
    cross,
    partials,
    arrived,
    total,
    n,
    begin,
    splits,
    part,
    older,
    place,
    cross_plane,
    max_chunks,
    products,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """64 rows of Y = X T and their share of Vᵀ Y.

    X is the sum of its parts (``part`` numbers apart) less V_k (Z_kᵀ V) + Z_k (V_kᵀ V) of the ``older`` panels k.
    """
    pid = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    i = begin + pid * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, WIDTH)[None, :]
    k = tl.arange(0, WIDTH)[:, None]
    tall = (batch * n + i.to(tl.int64))[:, None] * WIDTH + j
    inside = (i < n)[:, None] & (j >= 0)
    x = tl.zeros([ROWS, WIDTH], dtype=tl.float64)
    for _ in range(splits):
        x += tl.load(product + tall, mask=inside, other=0.0).to(tl.float64)
        product += part
    c = tl.arange(0, 16)
    rows = (i < n)[:, None] & (c >= 0)[None, :]
    for first in range(0, older * WIDTH, 16):  # one loop, as above
        at = first % WIDTH + c
        slices = (batch * n + i.to(tl.int64))[:, None] * WIDTH + at[None, :]
        with_v = cross + (batch * WIDTH + at[:, None]) * WIDTH + j
        old = tl.load(old_basis + slices, mask=rows, other=0.0)
        x -= tl.dot(old, tl.load(with_v + cross_plane), out_dtype=tl.float64)
        old = tl.load(old_z + slices, mask=rows, other=0.0)
        x -= tl.dot(old, tl.load(with_v), out_dtype=tl.float64)
        is_last = (first + 16) // WIDTH - first // WIDTH
        old_basis += is_last * place
        old_z += is_last * place
        cross += is_last * 2 * cross_plane
    y = tl.dot(x, tl.load(t + (batch * WIDTH + k) * WIDTH + j), out_dtype=tl.float64)
    tl.store(z + tall, y, mask=inside)
    v = tl.load(basis + tall, mask=inside, other=0.0)
    sums = tl.dot(tl.trans(v), y, out_dtype=tl.float64)
    tl.store(partials + ((batch * max_chunks + pid) * products * WIDTH + k) * WIDTH + j, sums)
    add_chunks(partials, arrived, total, 0, pid, tl.num_programs(0), max_chunks, 1, products, WIDTH)


@triton.jit(do_not_specialize=["n", "begin"])
def form_z_kernel(
    basis,
    z,
    halves,
    t,
    inner,
    scale,
    carried,
    with_carried,
    n,
    begin,
    plane,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
    CARRIED: tl.constexpr,
):
    """64 rows of Z = Y - 1/2 V Tᵀ (Vᵀ Y), in place of Y, and 64 numbers of CARRIED vectors x <- x - (x V) T Vᵀ."""
    batch = tl.program_id(1).to(tl.int64)
    i = begin + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, WIDTH)[None, :]
    k = tl.arange(0, WIDTH)[:, None]
    tall = (batch * n + i.to(tl.int64))[:, None] * WIDTH + j
    inside = (i < n)[:, None] & (j >= 0)
    here = (batch * WIDTH + k) * WIDTH + j
    middle = 0.5 * tl.dot(tl.trans(tl.load(t + here)), tl.load(inner + here), out_dtype=tl.float64)
    v = tl.load(basis + tall, mask=inside, other=0.0)
    result = tl.load(z + tall, mask=inside, other=0.0) - tl.dot(v, middle, out_dtype=tl.float64)
    up = tl.load(scale + batch).to(tl.float64)
    tl.debug_barrier()
    tl.store(z + tall, result, mask=inside)
    if SPLIT:
        _store_halves(halves, result * up, tall, plane, inside)
    if CARRIED:
        # Vectors as columns: rows of V by (x V T)ᵀ.
        middle = tl.dot(tl.load(with_carried + here), tl.load(t + here), out_dtype=tl.float64)
        v = tl.load(basis + tall, mask=inside, other=0.0)
        x = carried + (batch * CARRIED + tl.arange(0, WIDTH).to(tl.int64))[None, :] * n + i[:, None]
        some = (i < n)[:, None] & (j < CARRIED)
        result = tl.load(x, mask=some, other=0.0) - tl.dot(v, tl.trans(middle), out_dtype=tl.float64)
        tl.debug_barrier()
        tl.store(x, result, mask=some)
