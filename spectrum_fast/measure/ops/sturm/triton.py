"""Slicing on the GPU: one program a (matrix, shift), the active window of the factorisation in registers.

Method. Right-looking LDLᵀ one column a step, as in :mod:`spectrum_fast.measure.ops.sturm.reference`, but the window
never moves: index i of the matrix lives in slot ``i mod P`` (P = 32 or 64 slots, P >= b). A thread owns one slot as
column and all slots as rows. ``U`` holds only what eliminations have *added* to the active entries, so a new index
starts as a zeroed column and the band itself is read once, row by row, in its own storage. A step is

    m = U[s, :] + band[j, (slot - s) mod P] - x e_s,   d = m[s],   m[s] <- band[j, P],   U[:, s] <- 0,
    U <- U - m (m / d)ᵀ

with s = j mod P: row s is picked from registers (no exchange between threads), m is spread over the threads through
P numbers of shared memory, and no other data moves. Zero padding past row n makes every loop free of masks.

Cost for one real shift: bytes n (b + 2) * itemsize, read from L1/L2 after the first shift of a matrix; floor n b² / 2
multiply-adds. The step does P² of them (both triangles; half of one is dead): 2 x the floor at b = P. At an assumed
vector rate of 17 T multiply-adds/s in float64 (34 TFLOP/s) and 33 T in float32, the floor of one shift of an
8192 x 33 band is 0.25 us (float64), of one 8192 x 65 band 1.0 us, if all multiprocessors are full: 132 of them hold
about 1,800 programs at P = 32 (142 registers a thread, Triton 3.6). With fewer shifts than that the n dependent steps
set the time. A complex shift costs 4 x as much. **No time has been measured on a GPU yet.**

float64 is the default choice of the callers: counting must add no error to the band's own. Registers, spills and
shared memory of every variant: tests/measure/ops/test_triton_compile.py.
"""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportPossiblyUnboundVariable=false
# (kernel bodies are Triton's language, not Python)

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.sturm.bands import Bands, ScaledBands, scale_complex, scale_real
from spectrum_fast.measure.ops.sturm.brackets import narrow_by
from spectrum_fast.measure.ops.triton_support import INTERPRETED, launch_on

MAX_HALF_WIDTH = 64
"""Widest band served: a window of 128 slots spills registers (complex float64: 848 bytes a thread, sm_90)."""


def count_below(bands: Bands, shifts: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.count_below`."""
    x = scale_real(bands.scaled, shifts)
    counts = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    launch(_count_kernel, bands.scaled, x, counts, count_options(x.dtype, bands.scaled.half_width))
    return counts


def narrow(bands: Bands, lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`spectrum_fast.measure.ops.sturm.narrow`."""
    return narrow_by(lambda t: count_below(bands, t * t), lo, hi, ranks, enough)


def log_abs_det(bands: Bands, shifts: Tensor, wanted: Tensor | None = None) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.log_abs_det`."""
    if wanted is not None:
        shifts = torch.where(wanted, shifts, torch.complex(torch.ones_like(shifts.real), torch.ones_like(shifts.real)))
    re, im, factor, regained = scale_complex(bands.scaled, shifts)
    if wanted is not None:
        im.masked_fill_(~wanted, math.nan)  # what the kernel passes over
    operands = torch.stack([re, im, factor], dim=-1)
    logs = torch.empty_like(regained)
    launch(_log_abs_det_kernel, bands.scaled, operands, logs, log_abs_det_options(re.dtype, bands.scaled.half_width))
    values = logs + regained
    return values if wanted is None else torch.where(wanted, values, 0.0)


def launch(kernel: Any, bands: ScaledBands, operands: Tensor, results: Tensor, options: dict[str, int | bool]) -> None:
    """Launch a program for each shift.

    Args:
        kernel: ``_count_kernel`` or ``_log_abs_det_kernel``.
        bands: to be sliced.
        operands: of the kernel, in the dtype of the rows: shifts (m, s), or (m, s, 3) Re z, Im z, scale.
        results: (m, s) int64 counts, or float64 logarithms.
        options: :func:`count_options` or :func:`log_abs_det_options`.
    """
    shifts = operands.shape[1]
    if operands.numel():
        with launch_on(operands):
            kernel[(len(operands) * shifts,)](
                bands.rows, operands, results, bands.order, shifts, bands.rows.shape[1], **options
            )


def count_options(dtype: torch.dtype, half_width: int) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the counting kernel (measured: no spills).

    Rows of the window lie in registers, so a row whose place is known up to a multiple of UNROLLED is looked for in
    P / UNROLLED of them: for half-width 32 a step takes 279, 222, 185, 177 instructions at 1, 2, 4, 8, the last spills.
    """
    wide, double = half_width > 32, dtype == torch.float64
    return _options(half_width, double, unrolled=1 if wide and double else 4, warps=2 if wide else 1)


def log_abs_det_options(dtype: torch.dtype, half_width: int) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the kernel of log-determinants (measured: no spills).

    Instructions a step for half-width 32, float64: 569, 472, 391, 364 at UNROLLED 1, 2, 4, 8; the last spills.
    """
    wide, double = half_width > 32, dtype == torch.float64
    unrolled = 2 if not double else 4 if 16 < half_width <= 32 else 1
    return _options(half_width, double, unrolled=unrolled, warps=(4 if double else 2) if wide else 1)


def _options(half_width: int, double: bool, unrolled: int, warps: int) -> dict[str, int | bool]:
    """What both kernels are given.

    Raises:
        UsageError: a band wider than :data:`MAX_HALF_WIDTH`.
    """
    if half_width > MAX_HALF_WIDTH:
        raise UsageError(
            f"bands: backend 'triton' slices bands of half-width up to {MAX_HALF_WIDTH}, found {half_width}; "
            "reduce to a narrower band or use backend 'reference'"
        )
    slots = max(32, 1 << (half_width - 1).bit_length())
    # Left alone, ptxas stops at 128 or 168 registers on sm_80, and spills.
    cap = {"maxnreg": 255} if double and slots == 32 else {}
    return cap | {
        "WIDTH": half_width + 1,
        "P": slots,
        "UNROLLED": unrolled,
        "num_warps": warps,
        "enable_fp_fusion": True,
    }


_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def _or(a, b):
    return a | b


@triton.jit
def _pick_row(window, row, s):
    """Row s of a (P, P) window whose rows lie in registers: a bitwise or, which folds where the row is known."""
    bits: tl.constexpr = tl.int64 if window.dtype == tl.float64 else tl.int32
    masked = tl.where(row == s, window.to(bits, bitcast=True), 0)
    if _INTERPRETED:  # noqa: SIM108 - the same bits; the interpreter takes a custom reduction number by number
        picked = tl.sum(masked, axis=0)
    else:
        picked = tl.reduce(masked, 0, _or)
    return picked.to(bits).to(window.dtype, bitcast=True)


@triton.jit
def _drop_column(window, col, s):
    """Column s set to 0, or in float64 below 1e-313: one 32-bit operation a number, not two."""
    if window.dtype == tl.float64:
        bits = window.to(tl.int64, bitcast=True)
        keep = tl.where(col == s, tl.full(col.shape, 0xFFFFFFFF, tl.int64), tl.full(col.shape, -1, tl.int64))
        result = (bits & keep).to(tl.float64, bitcast=True)
    else:
        result = tl.where(col == s, 0.0, window)
    return result


@triton.jit(do_not_specialize=["n", "n_shifts", "padded_rows"])
def _count_kernel(
    rows, shifts, counts, n, n_shifts, padded_rows, WIDTH: tl.constexpr, P: tl.constexpr, UNROLLED: tl.constexpr
):
    """One shift of one matrix; rows (m, padded_rows, WIDTH + 1), shifts and counts (m, n_shifts)."""
    pid = tl.program_id(0)
    x = tl.load(shifts + pid)
    slot = tl.arange(0, P)
    row = tl.arange(0, P)[:, None]
    col = tl.arange(0, P)[None, :]
    here = rows + (pid // n_shifts).to(tl.int64) * padded_rows * (WIDTH + 1)
    window = tl.zeros([P, P], dtype=x.dtype)
    below = tl.zeros([P], dtype=tl.int32)
    ahead = tl.load(here + slot, mask=slot < WIDTH, other=0.0)
    for j0 in range(0, n, UNROLLED):
        for e in tl.static_range(UNROLLED):
            s = (j0 & (P - UNROLLED)) + e
            m = ahead
            next_offset = (slot - (s + 1)) & (P - 1)
            ahead = tl.load(here + (WIDTH + 1) + next_offset, mask=next_offset < WIDTH, other=0.0)
            floor = tl.load(here + WIDTH)
            m = m - tl.where(slot == s, x, 0.0) + _pick_row(window, row, s)
            d = tl.gather(m, tl.zeros([P], dtype=tl.int32) + s, 0)
            # Towards its own side of zero; zero itself, and NaN, to minus the bound.
            d = tl.where(tl.abs(d) >= floor, d, tl.where(d > 0, floor, -floor))
            below += ((d < 0) & (j0 + e < n)).to(tl.int32)
            if WIDTH == P + 1:  # noqa: SIM108 - a compile-time branch
                edge = tl.load(here + P)
            else:
                edge = 0.0
            m = tl.where(slot == s, edge, m)
            scaled = m * (1.0 / d)
            window = _drop_column(window, col, s) - m[:, None] * scaled[None, :]
            here += WIDTH + 1
    tl.store(counts + pid, tl.max(below, axis=0).to(tl.int64))


@triton.jit(do_not_specialize=["n", "n_shifts", "padded_rows"])
def _log_abs_det_kernel(
    rows, operands, logs, n, n_shifts, padded_rows, WIDTH: tl.constexpr, P: tl.constexpr, UNROLLED: tl.constexpr
):
    """One complex shift of one matrix: half the logarithm of the product of ``|d|^2``, mantissa and exponent apart.

    rows (m, padded_rows, WIDTH + 1), operands (m, n_shifts, 3), logs (m, n_shifts).
    """
    pid = tl.program_id(0)
    z_re = tl.load(operands + pid * 3)
    z_im = tl.load(operands + pid * 3 + 1)
    scale = tl.load(operands + pid * 3 + 2)
    slot = tl.arange(0, P)
    row = tl.arange(0, P)[:, None]
    col = tl.arange(0, P)[None, :]
    here = rows + (pid // n_shifts).to(tl.int64) * padded_rows * (WIDTH + 1)
    u_re = tl.zeros([P, P], dtype=z_re.dtype)
    u_im = tl.zeros([P, P], dtype=z_re.dtype)
    mantissa = tl.full([P], 1.0, tl.float64)
    exponent = tl.zeros([P], dtype=tl.int64)
    n = tl.where(z_im == z_im, n, 0)  # NaN: nobody wants this one
    # Exact pivots have |d| >= |Im d| >= Im z; a smaller one is rounding.
    floor = tl.maximum(0.5 * z_im, 1e-32 if z_re.dtype == tl.float64 else 1e-16)
    ahead = tl.load(here + slot, mask=slot < WIDTH, other=0.0)
    for j0 in range(0, n, UNROLLED):
        for e in tl.static_range(UNROLLED):
            s = (j0 & (P - UNROLLED)) + e
            m_re = ahead * scale
            next_offset = (slot - (s + 1)) & (P - 1)
            ahead = tl.load(here + (WIDTH + 1) + next_offset, mask=next_offset < WIDTH, other=0.0)
            m_re = m_re - tl.where(slot == s, z_re, 0.0) + _pick_row(u_re, row, s)
            m_im = _pick_row(u_im, row, s) - tl.where(slot == s, z_im, 0.0)
            index = tl.zeros([P], dtype=tl.int32) + s
            d_re = tl.gather(m_re, index, 0)
            d_im = tl.gather(m_im, index, 0)
            square = d_re * d_re + d_im * d_im
            sound = square >= floor * floor
            d_re = tl.where(sound, d_re, 0.0)
            d_im = tl.where(sound, d_im, -floor)
            inverse = 1.0 / tl.where(sound, square, floor * floor)
            wide_re, wide_im = d_re.to(tl.float64), d_im.to(tl.float64)
            mantissa *= tl.where(j0 + e < n, wide_re * wide_re + wide_im * wide_im, 1.0)
            if WIDTH == P + 1:  # noqa: SIM108 - a compile-time branch
                edge = tl.load(here + P) * scale
            else:
                edge = 0.0
            m_re = tl.where(slot == s, edge, m_re)
            m_im = tl.where(slot == s, 0.0, m_im)
            i_re = d_re * inverse
            i_im = -d_im * inverse
            t_re = (m_re * i_re - m_im * i_im)[None, :]
            t_im = (m_re * i_im + m_im * i_re)[None, :]
            u_re = _drop_column(u_re, col, s) - m_re[:, None] * t_re + m_im[:, None] * t_im
            u_im = _drop_column(u_im, col, s) - m_re[:, None] * t_im - m_im[:, None] * t_re
            here += WIDTH + 1
        biased = mantissa.to(tl.int64, bitcast=True) >> 52
        exponent += biased - 1023
        mantissa *= ((2046 - biased) << 52).to(tl.float64, bitcast=True)
    log_2: tl.constexpr = 0.6931471805599453
    log = tl.log(tl.max(mantissa, axis=0)) + log_2 * tl.max(exponent, axis=0).to(tl.float64)
    tl.store(logs + pid, 0.5 * log)
