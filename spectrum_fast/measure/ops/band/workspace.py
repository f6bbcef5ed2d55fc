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
FAN = 8
"""Chunks of a sum that are added up together, before those sums are."""
_PROGRAMS = 264
"""Programs wanted of one sweep: two for each of the 132 multiprocessors of an H100 or H200."""


@dataclass(frozen=True)
class Workspace:
    """Operands and scratch of one batch; row r of every tall array belongs to row r of the matrix.

    B is the half-width rounded up to a power of two, at least 16; columns from b on are zeros. V and Z of a panel wait
    in ``basis`` and ``z``, at the place that :meth:`place` names, until the matrix is updated: by the next panel's
    sweep, or, where ``group`` is more than 1, together with those of its group, which until then only read the matrix.
    S is the number of those places.

    Attributes:
        matrix: (m, n, n) float32 or float64, destroyed.
        band: (m, n, b + 1), the result, in the dtype of the matrix.
        panel: (m, n, B) float64, the panel P.
        basis: (S, m, n, B) float64, Q and then V.
        z: (S, m, n, B) float64, Y and then Z.
        basis_halves: (S, 2, m, n, B) float16: V_SCALE V = V[0] + V[1]; empty unless split.
        z_halves: (S, 2, m, n, B) float16: scale Z = Z[0] + Z[1]; in one memory with them.
        scale: (2, m) float32, powers of two: scale[0] with ``scale ||A'||_F`` in [4096, 8192), A' the matrix without
            its first b rows and columns: all that products are taken of; and ``scale[1] = 1 / (scale[0] V_SCALE)``.
        product: (MAX_SPLITS, m, n, B), A V in parts, in the dtype of the matrix.
        partials: (m, chunks, C, B, B) float64, sums over chunks of ROWS rows, C those of ``cross``.
        arrived: (m, 1 + chunks / FAN) int32, how many chunks (and groups of them) have been summed; 0 between launches.
        inner: (m, B, B) float64, their total: Pᵀ P, Qᵀ Q or Vᵀ Y.
        cross: (C, m, B, B) float64, totals of products with V: V_kᵀ V and Z_kᵀ V of each panel k of the group before
            this one, and then, if there are any, of the carried vectors (as rows).
        small: (7, m, B, B) float64: R1, W (Q1 = P W), M (V_rest = Q1_rest M), V_top, T, U, signs (row 0).
        broken: (m,) int32, whether the panel needs reflections column by column.
        carried: (m, p, n) float64, vectors that are taken along, p <= 16, or None.
        half_width: b.
        group: panels whose updates of the matrix are applied together.
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
    arrived: Tensor
    inner: Tensor
    cross: Tensor
    small: Tensor
    broken: Tensor
    carried: Tensor | None
    half_width: int
    group: int
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

    def place(self, index: int) -> int:
        """Where V and Z of a panel lie."""
        return index % len(self.basis)

    def pending(self, index: int) -> slice:
        """Places of the panels before this one whose updates the matrix lacks."""
        count = min(index, 1) if self.group == 1 else index % self.group
        first = self.place(index - count)
        return slice(first, first + count)

    def older(self, index: int) -> int:
        """How many of them the sweep does not apply: their places are the first ones."""
        return 0 if self.group == 1 else index % self.group

    def ends_group(self, index: int) -> bool:
        """Whether the matrix is updated after this panel."""
        return self.group > 1 and (index + 1) % self.group == 0

    def sweep_splits(self, rows: int) -> int:
        """Parts of A V for a trailing matrix of ``rows`` rows: enough programs to fill the device, a power of two."""
        if not self.split:
            return 1
        blocks = -(-rows // SWEEP_ROWS) * self.count
        splits = 1
        while splits < MAX_SPLITS and blocks * splits < _PROGRAMS and splits * SWEEP_ROWS < rows:
            splits *= 2
        return splits


def panels_together(order: int) -> int:
    """Panels whose updates of a matrix of ``order`` rows are applied together; what bench/gpu/model.py says is best.

    An update of G panels reads half the matrix and writes all of it once instead of G times; products with the panels
    that wait cost G times as much, in arrays of the width of a panel: they pay where the matrix is much wider.
    """
    return 4 if order >= 4096 else 1


def allocate(
    matrix: Tensor,
    half_width: int,
    split: bool | None = None,
    carried: Tensor | None = None,
    group: int | None = None,
) -> Workspace:
    """Scratch for a batch (m, n, n); beside the matrix about ``n B (8 + 24 S + 4 MAX_SPLITS)`` bytes each."""
    count, n, _ = matrix.shape
    width = max(16, 1 << (half_width - 1).bit_length())
    split = matrix.dtype == torch.float32 if split is None else split
    group = panels_together(n) if group is None else group
    places, products = max(group, 2), 2 * group - 1

    def empty(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=matrix.device)

    chunks = -(-n // ROWS)
    halves = empty(places, 2, 2, count, n if split else 0, width, dtype=torch.float16)
    return Workspace(
        matrix=matrix,
        band=torch.zeros(count, n, half_width + 1, dtype=matrix.dtype, device=matrix.device),
        panel=empty(count, n, width),
        basis=empty(places, count, n, width),
        z=empty(places, count, n, width),
        basis_halves=halves[:, 0],
        z_halves=halves[:, 1],
        scale=_scale_of(matrix[:, half_width:, half_width:]),
        product=empty(MAX_SPLITS if split else 1, count, n, width, dtype=matrix.dtype),
        partials=empty(count, chunks, products, width, width),
        arrived=torch.zeros(count, 1 + -(-chunks // FAN), dtype=torch.int32, device=matrix.device),
        inner=empty(count, width, width),
        cross=empty(products, count, width, width),
        small=empty(7, count, width, width),
        broken=empty(count, dtype=torch.int32),
        carried=carried,
        half_width=half_width,
        group=group,
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
