"""The b x b work of one panel, one thread block a matrix: Cholesky, Householder reconstruction, reflections."""

from __future__ import annotations

import triton
import triton.language as tl

from spectrum_fast.measure.ops.band import reference

_DEPENDENT = tl.constexpr(reference.DEPENDENT)
_NEARLY_ORTHONORMAL = tl.constexpr(reference.NEARLY_ORTHONORMAL)
_SERIES = tl.constexpr(1e-8)
"""Largest entry of ``E = Q1ᵀ Q1 - I`` for which ``I + low(E)`` is its Cholesky factor to working accuracy."""
_VANISHED = tl.constexpr(1e-280)
"""Sum of squares under which a column counts as zero: an error of 1e-140."""


@triton.jit
def _eliminate(g, steps, WIDTH: tl.constexpr):
    """Symmetric G becomes D Lᵀ on and above the diagonal and L^-1 (unit) below it; also how many pivots were bad.

    A step has one reciprocal, and a pivot is fetched from the thread that holds it, not summed out of all.
    """
    at = tl.arange(0, WIDTH)
    row = at[:, None]
    col = at[None, :]
    bad = tl.zeros([WIDTH], dtype=tl.int32)
    for k in range(steps):
        across = tl.sum(tl.where(row == k, g, 0.0), axis=0)
        d = tl.gather(across, tl.zeros([WIDTH], dtype=tl.int32) + k, 0)
        bad += (d <= _DEPENDENT).to(tl.int32) + (d != d).to(tl.int32)
        d = tl.where(d > _DEPENDENT, d, 1.0)
        multiplier = tl.where(at > k, across * (1.0 / d), 0.0)  # what is left is symmetric: its column is its row
        across = tl.where(at == k, 1.0, across)
        g = tl.where((row > k) & (col == k), 0.0, g) - multiplier[:, None] * across[None, :]
        g = tl.where((row == k) & (col == k), d[None, :], g)
    return g, tl.max(bad, axis=0)


@triton.jit
def _product(left, right, WIDTH: tl.constexpr):
    """A B of two stored WIDTH x WIDTH matrices, in slices of 16: two whole operands do not fit the registers."""
    at = tl.arange(0, WIDTH)
    c = tl.arange(0, 16)
    total = tl.zeros([WIDTH, WIDTH], dtype=tl.float64)
    for first in range(0, WIDTH, 16):
        a = tl.load(left + at[:, None] * WIDTH + first + c[None, :])
        b = tl.load(right + (first + c[:, None]) * WIDTH + at[None, :])
        total += tl.dot(a, b, out_dtype=tl.float64)
    return total


@triton.jit(do_not_specialize=["too_wide"])
def factor_gram_kernel(inner, r1, w, broken, too_wide, HALF_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """Pᵀ P = R1ᵀ R1 with its columns scaled to equal length; W = R1^-1; whether the panel is broken."""
    batch = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    row = at[:, None]
    col = at[None, :]
    here = (batch * WIDTH + row) * WIDTH + col
    g = tl.load(inner + here)
    diagonal = tl.load(inner + batch * WIDTH * WIDTH + at * (WIDTH + 1))
    length = tl.sqrt(diagonal)
    sound = (length > 0.0) & (length < 1e300)
    length = tl.where(sound, length, 1.0)
    missing = tl.sum(tl.where(sound | (at >= HALF_WIDTH), 0, 1), axis=0)
    g = g / length[:, None] / length[None, :]
    g = tl.where(row == col, 1.0, g)
    g, bad = _eliminate(g, HALF_WIDTH, WIDTH)
    tl.store(broken + batch, tl.where(bad + missing + too_wide > 0, 1, 0))
    pivots = tl.sum(tl.where(row == col, g, 0.0), axis=1)
    root = tl.sqrt(pivots)[:, None]
    tl.store(r1 + here, tl.where(row <= col, g / root * length[None, :], 0.0))
    # Transposed through memory: column i of W is row i of L^-1.
    unit = tl.where(row == col, 1.0, tl.where(row > col, g, 0.0))
    there = (batch * WIDTH + col) * WIDTH + row
    tl.store(w + there, unit / root / length[None, :])


@triton.jit
def _orthonormalise_again(inner, small, broken, plane, HALF_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """From Q1ᵀ Q1 = R2ᵀ R2: R2^-1 in the second plane, R = R2 R1 in place of R1 in the first; is the panel broken?"""
    at = tl.arange(0, WIDTH)
    row = at[:, None]
    col = at[None, :]
    here = row * WIDTH + col
    there = col * WIDTH + row
    w = small + plane
    u = small + 5 * plane
    eye = tl.where(row == col, 1.0, 0.0).to(tl.float64)
    pad = (row >= HALF_WIDTH) | (col >= HALF_WIDTH)

    g = tl.where(pad, eye, tl.load(inner + here))
    size = tl.abs(g - eye)
    too_far = tl.sum(tl.sum(tl.where(size <= _NEARLY_ORTHONORMAL, 0, 1), axis=1), axis=0)
    tl.store(broken, tl.where(too_far > 0, 1, tl.load(broken)))
    far = tl.sum(tl.sum(tl.where(size < _SERIES, 0, 1), axis=1), axis=0)
    near = far == 0
    g, _ = _eliminate(g, tl.where(near, 0, HALF_WIDTH), WIDTH)
    scale = 1.0 / tl.sqrt(tl.sum(tl.where(row == col, g, 0.0), axis=1))[:, None]
    error = tl.load(inner + here)  # again: kept, it would not fit the registers
    error = tl.where(pad | (row > col), 0.0, tl.where(row == col, 0.5 * (error - 1.0), error))
    tl.store(u + here, tl.where(near, eye + error, tl.where(row <= col, g * scale, 0.0)))
    unit = tl.where(row == col, 1.0, tl.where(row > col, g, 0.0))
    # R2^-1, written transposed in one case and as it is in the other.
    tl.store(w + there, unit * scale, mask=row * 0 + col * 0 + far > 0)
    tl.store(w + here, eye - error, mask=row * 0 + col * 0 + far == 0)
    tl.debug_barrier()
    r = _product(u, small, WIDTH)
    tl.debug_barrier()
    tl.store(small + here, r)


@triton.jit
def _sweep(basis, small, rows, plane, HALF_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """LU of the top of Q1 R2^-1 less its signs: L in ``top``, U in ``u``, the signs, and the swept block S in ``t``."""
    at = tl.arange(0, WIDTH)
    row = at[:, None]
    col = at[None, :]
    here = row * WIDTH + col
    w = small + plane
    top = small + 3 * plane
    t = small + 4 * plane
    u = small + 5 * plane
    signs = small + 6 * plane
    eye = tl.where(row == col, 1.0, 0.0).to(tl.float64)
    c = tl.arange(0, 16)
    g = tl.zeros([WIDTH, WIDTH], dtype=tl.float64)
    for first in range(0, WIDTH, 16):
        k = first + c
        inside = (row < rows) & (row < HALF_WIDTH) & (k >= 0)[None, :]
        q = tl.load(basis + row * WIDTH + k[None, :], mask=inside, other=0.0)
        g += tl.dot(q, tl.load(w + k[:, None] * WIDTH + col), out_dtype=tl.float64)
    g = tl.where((row >= HALF_WIDTH) | (col >= HALF_WIDTH), eye, g)
    tl.store(u + here, eye)
    tl.store(top + here, eye)
    tl.debug_barrier()
    for k in range(HALF_WIDTH):
        across = tl.sum(tl.where(row == k, g, 0.0), axis=0)
        down = tl.gather(g, tl.zeros([WIDTH, 1], dtype=tl.int32) + k, 1)
        d = tl.gather(across, tl.zeros([WIDTH], dtype=tl.int32) + k, 0)
        sign = tl.where(d >= 0.0, -1.0, 1.0).to(tl.float64)
        d -= sign
        tl.store(signs + at, sign, mask=at == k)
        tl.store(u + k * WIDTH + at, tl.where(at == k, d, across), mask=at >= k)
        inverse = 1.0 / d
        tl.store(top + here, down * inverse[None, :], mask=(col == k) & (row > k))
        across = tl.where(at == k, 1.0, across) * inverse
        g = tl.where(col == k, 0.0, g) - tl.where(row == k, 0.0, down) * across[None, :]
        g = tl.where(row == k, across[None, :], g)
    tl.store(t + here, g)


@triton.jit
def _assemble(band, small, n, begin, start, plane, HALF_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """M = R2^-1 (S L), T = -(U S) (U S)ᵀ with S the swept block, V_top, and the band's R; factors go through memory."""
    at = tl.arange(0, WIDTH)
    row = at[:, None]
    col = at[None, :]
    here = row * WIDTH + col
    there = col * WIDTH + row
    w = small + plane
    m = small + 2 * plane
    top = small + 3 * plane
    t = small + 4 * plane
    u = small + 5 * plane
    signs = small + 6 * plane
    pad = (row >= HALF_WIDTH) | (col >= HALF_WIDTH)
    sign = tl.load(signs + at, mask=at < HALF_WIDTH, other=1.0)
    tl.store(m + here, _product(t, top, WIDTH))
    right = _product(u, t, WIDTH)
    tl.debug_barrier()
    tl.store(t + there, right * sign[None, :])
    product = _product(w, m, WIDTH)
    tl.debug_barrier()
    tl.store(m + here, product)
    full = -_product(u, t, WIDTH)
    v_top = tl.where(pad, 0.0, tl.load(top + here))
    r = tl.load(small + here) * sign[:, None]
    tl.debug_barrier()
    tl.store(t + here, tl.where(pad | (row > col), 0.0, full))
    tl.store(top + here, v_top)
    target = (start + col) * (HALF_WIDTH + 1) + HALF_WIDTH + row - col
    tl.store(band + target, r.to(band.dtype.element_ty), mask=(row <= col) & (col < HALF_WIDTH) & (begin + row < n))


@triton.jit
def _reflect(
    panel,
    basis,
    band,
    small,
    batch,
    n,
    index,
    plane,
    HALF_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Householder reflections column by column, in place of P: V, V_top, T, M = I, the band's R."""
    begin = (index + 1) * HALF_WIDTH
    rows = n - begin
    at = tl.arange(0, WIDTH)
    row = at[:, None]
    col = at[None, :]
    here = (batch * WIDTH + row) * WIDTH + col
    r = tl.arange(0, ROWS)
    panel += (batch * n + begin) * WIDTH
    basis += (batch * n + begin) * WIDTH
    taus = tl.zeros([WIDTH], dtype=tl.float64)
    for first in range(0, rows, ROWS):
        inside = (first + r < rows)[:, None] & (col >= 0)
        tl.store(basis + (first + r)[:, None] * WIDTH + col, tl.zeros([ROWS, WIDTH], tl.float64), mask=inside)
    tl.debug_barrier()
    for k in range(tl.minimum(rows - 1, HALF_WIDTH)):
        products = tl.zeros([WIDTH], dtype=tl.float64)
        for first in range(0, rows, ROWS):
            i = first + r
            below = (i > k) & (i < rows)
            x = tl.load(panel + i * WIDTH + k, mask=below, other=0.0)
            tile = tl.load(panel + i[:, None] * WIDTH + col, mask=below[:, None] & (col >= 0), other=0.0)
            products += tl.sum(x[:, None] * tile, axis=0)
        tail = tl.sum(tl.where(at == k, products, 0.0), axis=0)
        heads = tl.load(panel + k * WIDTH + at)
        head = tl.sum(tl.where(at == k, heads, 0.0), axis=0)
        active = tail > _VANISHED
        norm = tl.sqrt(tl.where(active, head * head + tail, 1.0))
        beta = tl.where(head >= 0.0, -norm, norm)
        tau = tl.where(active, (beta - head) / beta, 0.0)
        inverse = tl.where(active, 1.0 / (head - beta), 0.0)
        beta = tl.where(active, beta, head)
        taus = tl.where(at == k, tau, taus)
        weights = tl.where(at > k, tau * (heads + inverse * products), 0.0)
        tl.debug_barrier()
        for first in range(0, rows, ROWS):
            i = first + r
            below = (i >= k) & (i < rows)
            x = tl.load(panel + i * WIDTH + k, mask=below, other=0.0)
            v = tl.where(i == k, tl.where(active, 1.0, 0.0), x * inverse)
            tile = tl.load(panel + i[:, None] * WIDTH + col, mask=below[:, None] & (col > k), other=0.0)
            tl.debug_barrier()
            tl.store(
                panel + i[:, None] * WIDTH + col,
                tile - v[:, None] * weights[None, :],
                mask=below[:, None] & (col > k),
            )
            tl.store(basis + i * WIDTH + k, v, mask=below)
        tl.debug_barrier()
        tl.store(panel + k * WIDTH + k, beta)
        tl.debug_barrier()

    products2 = tl.zeros([WIDTH, WIDTH], dtype=tl.float64)
    for first in range(0, rows, ROWS):
        inside = (first + r < rows)[:, None] & (col >= 0)
        v = tl.load(basis + (first + r)[:, None] * WIDTH + col, mask=inside, other=0.0)
        products2 += tl.dot(tl.trans(v), v, out_dtype=tl.float64)
    t = tl.zeros([WIDTH, WIDTH], dtype=tl.float64)
    for k in range(HALF_WIDTH):
        tau = tl.sum(tl.where(at == k, taus, 0.0), axis=0)
        across = tl.sum(tl.where((row == k) & (col < k), products2, 0.0), axis=0)
        column = -tau * tl.sum(t * across[None, :], axis=1)
        column = tl.where(at < k, column, tl.where(at == k, tau, 0.0))
        t = tl.where(col == k, column[:, None], t)
    tl.store(small + 4 * plane + here, t)
    tl.store(small + 2 * plane + here, tl.where(row == col, 1.0, 0.0).to(tl.float64))
    upper = (row < HALF_WIDTH) & (row < rows) & (col >= 0)
    tl.store(small + 3 * plane + here, tl.load(basis + row * WIDTH + col, mask=upper, other=0.0))
    result = tl.load(panel + row * WIDTH + col, mask=upper, other=0.0)
    target = (batch * n + index * HALF_WIDTH + col) * (HALF_WIDTH + 1) + HALF_WIDTH + row - col
    tl.store(band + target, result.to(band.dtype.element_ty), mask=upper & (row <= col) & (col < HALF_WIDTH))


@triton.jit(do_not_specialize=["n", "index"])
def reconstruct_kernel(
    inner,
    panel,
    basis,
    band,
    small,
    broken,
    n,
    index,
    plane,
    HALF_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """V_top, M, T and the band's R from Q1ᵀ Q1 and the top of Q1; planes of ``small`` are ``plane`` numbers apart.

    ``STEPS`` has a bit for each of the four steps, of which broken panels alone take the last one; at width 64 they are
    launches of their own, since what the compiler would carry from one to the next does not fit the registers.
    """
    batch = tl.program_id(0).to(tl.int64)
    begin = (index + 1) * HALF_WIDTH
    here = small + batch * WIDTH * WIDTH
    if STEPS & 1:
        _orthonormalise_again(inner + batch * WIDTH * WIDTH, here, broken + batch, plane, HALF_WIDTH, WIDTH)
        tl.debug_barrier()
    if STEPS & 2:
        _sweep(basis + (batch * n + begin) * WIDTH, here, n - begin, plane, HALF_WIDTH, WIDTH)
        tl.debug_barrier()
    if STEPS & 4:
        _assemble(band, here, n, begin, batch * n + index * HALF_WIDTH, plane, HALF_WIDTH, WIDTH)
        tl.debug_barrier()
    if STEPS & 8:  # noqa: SIM102 - the outer one is decided when it is compiled
        if tl.load(broken + batch) != 0:
            _reflect(panel, basis, band, small, batch, n, index, plane, HALF_WIDTH, WIDTH, ROWS)
