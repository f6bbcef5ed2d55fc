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
from spectrum_fast.measure.ops.band.device_small import factor_gram_kernel, reconstruct_kernel
from spectrum_fast.measure.ops.band.device_sweep import sweep_kernel, update_kernel
from spectrum_fast.measure.ops.band.workspace import R1, ROWS, SWEEP_ROWS, TOP, M, T, W, Workspace
from spectrum_fast.measure.ops.gram.device_tiles import GROUP
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


def update_options(width: int, capability: int = 90) -> dict[str, int | bool]:
    """Compile-time constants and launch options of the update of several panels."""
    return {
        "WIDTH": width,
        "TILE": 16 if INTERPRETED else 64 if capability < 90 and width == 64 else 128,
        "GROUP": GROUP,
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


def basis_options(width: int) -> dict[str, int | bool]:
    """Those of the one that forms V and its products."""
    # Left alone, the ptxas of Triton 3.6 stops at 96 registers and spills four numbers at B = 32.
    return tall_options(width) | ({"maxnreg": 168} if width == 32 else {})


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
    """The launches of the reconstruction, as bits of its four steps: one, or at width 64 one for each step."""
    return (0b1111,) if width < 64 else (0b0001, 0b0010, 0b0100, 0b1000)


def gather_panel(w: Workspace, index: int) -> None:
    """P, the diagonal block of the band, and Pᵀ P."""
    chunks, pending = _chunks(w, index), w.pending(index)
    gather_kernel[(chunks + 1, w.count)](
        w.matrix,
        w.band,
        w.panel,
        w.basis[pending.start],
        w.z[pending.start],
        *_sums(w),
        w.inner,
        w.order,
        index,
        pending.stop - pending.start,
        w.basis.stride(0),
        chunks,
        *_room(w),
        HALF_WIDTH=w.half_width,
        **gather_options(w.width, w.matrix.dtype),
    )


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
    orthonormalise_kernel[(_chunks(w, index), w.count)](
        w.panel,
        w.basis[w.place(index)],
        w.small[R1],
        w.small[W],
        *_sums(w),
        w.inner,
        w.order,
        (index + 1) * w.half_width,
        *_room(w),
        **tall_options(w.width),
    )


def reconstruct(w: Workspace, index: int) -> None:
    """V_top, M, T and the band's R; those of broken panels by plain Householder reflections."""
    for steps in reconstruct_steps(w.width):
        reconstruct_kernel[(w.count,)](
            w.inner,
            w.panel,
            w.basis[w.place(index)],
            w.band,
            w.small,
            w.broken,
            w.order,
            index,
            w.small.stride(0),
            STEPS=steps,
            ROWS=ROWS,
            **small_options(w.half_width, w.width),
        )


def form_basis(w: Workspace, index: int) -> None:
    """V = [V_top; Q1_rest M], its float16 halves, and its products with panels that wait and with carried vectors."""
    place = w.place(index)
    halves = w.basis_halves[place]
    form_basis_kernel[(_chunks(w, index), w.count)](
        w.basis[place],
        halves,
        w.small[M],
        w.small[TOP],
        w.basis,
        w.z,
        _carried(w),
        *_sums(w),
        w.cross,
        w.order,
        (index + 1) * w.half_width,
        w.older(index),
        w.basis.stride(0),
        halves.stride(0),
        w.cross.stride(0),
        *_room(w),
        HALF_WIDTH=w.half_width,
        SPLIT=w.split,
        CARRIED=0 if w.carried is None else w.carried.shape[1],
        **basis_options(w.width),
    )


def sweep(w: Workspace, index: int) -> None:
    """X = A V of this panel, and before it the last one's update where that does not wait for others; or by cuBLAS."""
    if not w.split:
        reference.sweep(w, index)
        return
    rows, place, pending = w.order - (index + 1) * w.half_width, w.place(index), w.group == 1 and index > 0
    last = w.place(index - 1) if pending else place
    sweep_kernel[(triton.cdiv(rows, SWEEP_ROWS), w.sweep_splits(rows), w.count)](
        w.matrix,
        w.basis_halves[place],
        w.basis_halves[last],
        w.z_halves[last],
        w.product,
        w.scale,
        w.order,
        index,
        w.z_halves.stride(1),
        w.product.stride(0),
        HALF_WIDTH=w.half_width,
        PENDING=pending,
        **sweep_options(w.width, capability_of(w.matrix)),
    )


def form_y(w: Workspace, index: int) -> None:
    """Y = X T, X corrected by the panels that wait, and Vᵀ Y."""
    begin, place = (index + 1) * w.half_width, w.place(index)
    form_y_kernel[(_chunks(w, index), w.count)](
        w.product,
        w.basis[place],
        w.z[place],
        w.small[T],
        w.basis,
        w.z,
        w.cross,
        *_sums(w),
        w.inner,
        w.order,
        begin,
        w.sweep_splits(w.order - begin),
        w.product.stride(0),
        w.older(index),
        w.basis.stride(0),
        w.cross.stride(0),
        *_room(w),
        **tall_options(w.width),
    )


def form_z(w: Workspace, index: int) -> None:
    """Z = Y - 1/2 V Tᵀ (Vᵀ Y), its float16 halves, and the carried vectors."""
    place = w.place(index)
    form_z_kernel[(_chunks(w, index), w.count)](
        w.basis[place],
        w.z[place],
        w.z_halves[place],
        w.small[T],
        w.inner,
        w.scale,
        _carried(w),
        w.cross[2 * w.older(index)],
        w.order,
        (index + 1) * w.half_width,
        w.z_halves.stride(1),
        SPLIT=w.split,
        CARRIED=0 if w.carried is None else w.carried.shape[1],
        **tall_options(w.width),
    )


def update(w: Workspace, index: int) -> None:
    """A <- A - V Zᵀ - Z Vᵀ of the group of panels that this one ends; float64 by cuBLAS."""
    if not w.split:
        reference.update(w, index)
        return
    begin = (index + 1) * w.half_width
    options = update_options(w.width, capability_of(w.matrix))
    tiles = triton.cdiv(w.order - begin, int(options["TILE"]))
    update_kernel[(tiles * (tiles + 1) // 2, w.count)](
        w.matrix,
        w.basis_halves,
        w.scale,
        w.order,
        begin,
        w.group,
        w.basis_halves.stride(0),
        w.z_halves.storage_offset() - w.basis_halves.storage_offset(),
        w.basis_halves.stride(1),
        **options,
    )


def _sums(w: Workspace) -> tuple[Tensor, Tensor]:
    """Where sums over chunks are added up."""
    return w.partials, w.arrived


def _room(w: Workspace) -> tuple[int, int]:
    """Chunks and products that there is memory for."""
    return w.partials.shape[1], w.partials.shape[2]


def _carried(w: Workspace) -> Tensor:
    """The carried vectors, or something that is not looked at."""
    return w.panel if w.carried is None else w.carried


def _chunks(w: Workspace, index: int) -> int:
    return -(-(w.order - (index + 1) * w.half_width) // ROWS)
