"""The steps of the GPU band reduction as launches of Triton kernels; names and meaning as in ``reference``."""

# pyright: reportArgumentType=false
# (compile-time constants are given as plain numbers)

from __future__ import annotations

import torch
import triton
from torch import Tensor

from spectrum_fast.measure.ops.band import reference
from spectrum_fast.measure.ops.band.device_panel import (
    form_basis_kernel,
    form_y_kernel,
    form_z_kernel,
    gather_kernel,
    orthonormalise_kernel,
)
from spectrum_fast.measure.ops.band.device_small import factor_gram_kernel, reconstruct_kernel, reflect_kernel
from spectrum_fast.measure.ops.band.device_sweep import sweep_kernel
from spectrum_fast.measure.ops.band.workspace import R1, ROWS, SWEEP_ROWS, TOP, M, T, W, Workspace
from spectrum_fast.measure.ops.triton_support import INTERPRETED, capability_of

SMALL_WARPS = {16: 1, 32: 4, 64: 8}
"""Warps of the one-block kernels, by B."""
TALL_WARPS = {16: 4, 32: 4, 64: 8}
"""Warps of the kernels over 64 rows of the panel, by B."""


def sweep_options(width: int, capability: int = 90) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the sweep (64 columns at a time spill on sm_80).

    With two stages each step would wait for its own operands. With three and 16 columns, three programs at B = 32 share
    a multiprocessor (80 registers, 76 KB), each with its next 8 KB of the matrix under way, and issue 1.5 times as fast
    as memory delivers; with 32 columns one would be alone.
    """
    ahead = capability >= 90 and width <= 32
    cap = {"maxnreg": 80} if ahead and width == 32 else {}
    return cap | {
        "ROWS": SWEEP_ROWS,
        "COLUMNS": 16 if ahead else 32,
        "WIDTH": width,
        "WIDEN": INTERPRETED,
        "num_warps": 8,
        "num_stages": 3 if capability >= 90 else 2,
        "enable_fp_fusion": True,
    }


def tall_options(width: int) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the kernels over rows of the panel."""
    return {
        "WIDTH": width,
        "ROWS": ROWS,
        "num_warps": TALL_WARPS[width],
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def gather_options(width: int, dtype: torch.dtype) -> dict[str, int | bool]:
    """Those of the first of them, which reads matrices of ``dtype``."""
    # Left alone, ptxas stops at 168 registers for float64 at B = 32 on sm_90 and spills one number.
    return tall_options(width) | ({"maxnreg": 255} if width == 32 and dtype == torch.float64 else {})


def small_options(half_width: int, width: int) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the one-block kernels."""
    # Left alone, ptxas stops at 128 registers at B = 32 and spills a few of them.
    cap = {"maxnreg": 255} if width == 32 else {}
    return cap | {
        "HALF_WIDTH": half_width,
        "WIDTH": width,
        "num_warps": SMALL_WARPS[width],
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def reconstruct_steps(width: int) -> tuple[int, ...]:
    """The launches of the reconstruction, as bits of its three steps: one, or at width 64 one for each step."""
    return (0b111,) if width < 64 else (0b001, 0b010, 0b100)


def gather_panel(w: Workspace, index: int) -> None:
    """P, the diagonal block of the band, and Pᵀ P."""
    chunks = _chunks(w, index)
    gather_kernel[(chunks + 1, w.count)](
        w.matrix,
        w.band,
        w.panel,
        w.basis[(index - 1) % 2],
        w.z,
        w.partials,
        w.order,
        index,
        chunks,
        w.partials.shape[1],
        HALF_WIDTH=w.half_width,
        PENDING=index > 0,
        **gather_options(w.width, w.matrix.dtype),
    )
    _total(w, chunks)


def factor_gram(w: Workspace, index: int) -> None:
    """R1 and W = R1^-1; broken panels marked."""
    too_wide = w.order - (index + 1) * w.half_width < w.half_width
    factor_gram_kernel[(w.count,)](
        w.inner,
        w.small[R1],
        w.small[W],
        w.broken,
        int(too_wide),
        **small_options(w.half_width, w.width),
    )


def orthonormalise(w: Workspace, index: int) -> None:
    """Q1 = P W, refined, and Q1ᵀ Q1."""
    chunks = _chunks(w, index)
    orthonormalise_kernel[(chunks, w.count)](
        w.panel,
        w.basis[index % 2],
        w.small[R1],
        w.small[W],
        w.partials,
        w.order,
        (index + 1) * w.half_width,
        w.partials.shape[1],
        **tall_options(w.width),
    )
    _total(w, chunks)


def reconstruct(w: Workspace, index: int) -> None:
    """V_top, M, T and the band's R; broken panels marked."""
    for steps in reconstruct_steps(w.width):
        options = small_options(w.half_width, w.width)
        reconstruct_kernel[(w.count,)](w.inner, *_factors(w, index), STEPS=steps, **options)


def reflect_columns(w: Workspace, index: int) -> None:
    """Replace the factors of broken panels by those of plain Householder reflections."""
    options = small_options(w.half_width, w.width)
    reflect_kernel[(w.count,)](w.panel, *_factors(w, index), ROWS=ROWS, **options)


def form_basis(w: Workspace, index: int) -> None:
    """V = [V_top; Q1_rest M], and its float16 halves."""
    halves = w.basis_halves[index % 2]
    form_basis_kernel[(_chunks(w, index), w.count)](
        w.basis[index % 2],
        halves,
        w.small[M],
        w.small[TOP],
        w.order,
        (index + 1) * w.half_width,
        halves.stride(0),
        HALF_WIDTH=w.half_width,
        SPLIT=w.split,
        **tall_options(w.width),
    )


def sweep(w: Workspace, index: int) -> None:
    """A <- A - V Zᵀ - Z Vᵀ of the last panel, X = A V of this one; float64 by cuBLAS."""
    if not w.split:
        reference.sweep(w, index)
        return
    rows, turn = w.order - (index + 1) * w.half_width, index % 2
    sweep_kernel[(triton.cdiv(rows, SWEEP_ROWS), w.sweep_splits(rows), w.count)](
        w.matrix,
        w.basis_halves[turn],
        w.basis_halves[1 - turn],
        w.z_halves,
        w.product,
        w.scale,
        w.order,
        index,
        w.z_halves.stride(0),
        w.product.stride(0),
        HALF_WIDTH=w.half_width,
        PENDING=index > 0,
        **sweep_options(w.width, capability_of(w.matrix)),
    )


def form_y(w: Workspace, index: int) -> None:
    """Y = X T and Vᵀ Y."""
    begin, chunks = (index + 1) * w.half_width, _chunks(w, index)
    form_y_kernel[(chunks, w.count)](
        w.product,
        w.basis[index % 2],
        w.z,
        w.small[T],
        w.partials,
        w.order,
        begin,
        w.sweep_splits(w.order - begin),
        w.product.stride(0),
        w.partials.shape[1],
        **tall_options(w.width),
    )
    _total(w, chunks)


def form_z(w: Workspace, index: int) -> None:
    """Z = Y - 1/2 V Tᵀ (Vᵀ Y), and its float16 halves."""
    form_z_kernel[(_chunks(w, index), w.count)](
        w.basis[index % 2],
        w.z,
        w.z_halves,
        w.small[T],
        w.inner,
        w.scale,
        w.order,
        (index + 1) * w.half_width,
        w.z_halves.stride(0),
        SPLIT=w.split,
        **tall_options(w.width),
    )


def _factors(w: Workspace, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    """What both ways to the factors of a panel work on, in the order of their kernels' arguments."""
    return w.basis[index % 2], w.band, w.small, w.broken, w.order, index, w.small.stride(0)


def _chunks(w: Workspace, index: int) -> int:
    return -(-(w.order - (index + 1) * w.half_width) // ROWS)


def _total(w: Workspace, chunks: int) -> None:
    torch.sum(w.partials[:, :chunks], 1, out=w.inner)
