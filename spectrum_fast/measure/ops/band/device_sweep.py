"""The kernel over the trailing matrix: the last panel's update and the product with this panel's V, in one pass."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false
# (kernel bodies are Triton's language, not Python)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_halves(halves, offset, plane, inside, WIDEN: tl.constexpr):
    high = tl.load(halves + offset, mask=inside, other=0.0)
    low = tl.load(halves + plane + offset, mask=inside, other=0.0)
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
