"""Scratch memory of the band reduction: made once a call, reused by every panel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure

ROWS = 64
"""Rows of a tall panel that one program of the panel kernels takes."""
SWEEP_ROWS = 128
"""Rows of the matrix that one program of the sweep takes."""
MAX_SPLITS = 8
"""Programs that share the columns of one block of rows in the sweep, at most."""
_V_EXPONENT = 10
V_SCALE = 2.0**_V_EXPONENT
"""Factor on V (entries up to 1) before it is cut into float16 halves: the second half stays clear of subnormal numbers.
"""
R1, W, M, TOP, T = range(5)
"""Places in ``Workspace.small``."""
_PROGRAMS = 264
"""Programs wanted of one sweep: two for each of the 132 multiprocessors of an H100 or H200."""


@dataclass(frozen=True)
class Workspace:
    """Operands and scratch of one batch; row r of every tall array belongs to row r of the matrix.

    B is the half-width rounded up to a power of two, at least 16; columns from b on are zeros. V and Z of the last
    panel wait in ``basis[1 - turn]`` and ``z`` until the next sweep applies them.

    Attributes:
        matrix: (m, n, n) float32 or float64, destroyed.
        band: (m, n, b + 1), the result, in the dtype of the matrix.
        panel: (m, n, B) float64, the panel P.
        basis: (2, m, n, B) float64, Q and then V, for this panel and the last.
        z: (m, n, B) float64, Y and then Z.
        basis_halves: (2, 2, m, n, B) float16: V_SCALE V = V[0] + V[1], for this panel and the last; empty unless split.
        z_halves: (2, m, n, B) float16: scale Z = Z[0] + Z[1]; empty unless split.
        scale: (2, m) float32, powers of two: scale[0] with ``scale ||A'||_F`` in [4096, 8192), A' the matrix without
            its first b rows and columns: all that products are taken of; and ``scale[1] = 1 / (scale[0] V_SCALE)``.
        product: (MAX_SPLITS, m, n, B), A V in parts, in the dtype of the matrix.
        partials: (m, chunks, B, B) float64, sums over chunks of ROWS rows.
        inner: (m, B, B) float64, their total: Pᵀ P, Qᵀ Q or Vᵀ Y.
        small: (7, m, B, B) float64: R1, W (Q1 = P W), M (V_rest = Q1_rest M), V_top, T, U, signs (row 0).
        broken: (m,) int32, whether the panel needs reflections column by column.
        carried: (m, p, n) float64, vectors that are taken along, or None.
        half_width: b.
        split: whether products of the size of the matrix are taken in three products of float16 halves.
    """

    matrix: Tensor
    band: Tensor
    panel: Tensor
    basis: Tensor
    z: Tensor
    basis_halves: Tensor
    z_halves: Tensor
    scale: Tensor
    product: Tensor
    partials: Tensor
    inner: Tensor
    small: Tensor
    broken: Tensor
    carried: Tensor | None
    half_width: int
    split: bool

    @property
    def count(self) -> int:
        """Matrices in the batch."""
        return self.matrix.shape[0]

    @property
    def order(self) -> int:
        """Rows n of a matrix."""
        return self.matrix.shape[1]

    @property
    def width(self) -> int:
        """B."""
        return self.panel.shape[2]

    def begin_again(self) -> None:
        """Make ready for the matrices that have been put into ``matrix``."""
        self.band.zero_()
        self.scale.copy_(_scale_of(self.matrix[:, self.half_width :, self.half_width :]))

    def sweep_splits(self, rows: int) -> int:
        """Parts of A V for a trailing matrix of ``rows`` rows: enough programs to fill the device, a power of two."""
        if not self.split:
            return 1
        blocks = -(-rows // SWEEP_ROWS) * self.count
        splits = 1
        while splits < MAX_SPLITS and blocks * splits < _PROGRAMS and splits * SWEEP_ROWS < rows:
            splits *= 2
        return splits


def allocate(matrix: Tensor, half_width: int, split: bool | None = None, carried: Tensor | None = None) -> Workspace:
    """Scratch for a batch (m, n, n); the bytes beside the matrix are about ``n B (8 * 4 + 12 + 4 MAX_SPLITS)`` each."""
    count, n, _ = matrix.shape
    width = max(16, 1 << (half_width - 1).bit_length())
    split = matrix.dtype == torch.float32 if split is None else split

    def empty(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=matrix.device)

    halves = n if split else 0
    return Workspace(
        matrix=matrix,
        band=torch.zeros(count, n, half_width + 1, dtype=matrix.dtype, device=matrix.device),
        panel=empty(count, n, width),
        basis=empty(2, count, n, width),
        z=empty(count, n, width),
        basis_halves=empty(2, 2, count, halves, width, dtype=torch.float16),
        z_halves=empty(2, count, halves, width, dtype=torch.float16),
        scale=_scale_of(matrix[:, half_width:, half_width:]),
        product=empty(MAX_SPLITS if split else 1, count, n, width, dtype=matrix.dtype),
        partials=empty(count, -(-n // ROWS), width, width),
        inner=empty(count, width, width),
        small=empty(7, count, width, width),
        broken=empty(count, dtype=torch.int32),
        carried=carried,
        half_width=half_width,
        split=split,
    )


def _scale_of(trailing: Tensor) -> Tensor:
    """Powers of two that put A', its orthogonal transforms and Z into float16, and their reciprocals with V's; (2, m).

    Outliers that were rotated into the first rows must not set the scale: the rest would vanish under it.
    """
    norms = torch.sqrt(measure(trailing)[:, 1])
    exponent = torch.frexp(torch.where(norms > 0, norms, 1.0)).exponent
    # 2^e made of the bits of a float32; clamped, so that the reciprocal, which takes V_SCALE off too, is a normal one.
    up = 140 - exponent.clamp(-90, 120).to(torch.int32)
    return (torch.stack([up, 254 - _V_EXPONENT - up]) << 23).view(torch.float32)
