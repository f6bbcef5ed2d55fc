"""One matrix in blocks, which run along its long side.

A tall matrix (m >= n) comes in runs of rows, and ``G = sum_b W_b^T W_b``; a wide one in runs of columns, and
``G = sum_b W_b W_b^T``. A rotation acts on the short side, so it acts on each block alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.ops.gram import add_gram
from spectrum_fast.measure.spectra.matrices.dense import count_not_finite, image_of, sums_of_squares
from spectrum_fast.measure.spectra.matrices.matrices import Matrices
from spectrum_fast.measure.spectra.probes import FEW_READINGS, Plan
from spectrum_fast.measure.spectra.rotation import OutlierBasis, rotate
from spectrum_fast.measure.spectra.scaling import scale_by_power_of_two

_QR_ROWS = 2
"""Rows of one step of the QR decomposition, in multiples of the short side: 4/3 of the flops of a single step."""
_LEAST_QR_ROWS = 1024
"""And no fewer than this, so that a long thin matrix does not take thousands of steps, each with its rounding."""


@dataclass(frozen=True)
class Blocks(Matrices):
    """One matrix of which only blocks are ever in memory; see :class:`Matrices`.

    Every step is one pass over the blocks: the first forms the extent and, on the chance that no scaling is called for,
    the float32 Gram matrix with it and its first probe, so that a tame matrix is read twice. Scaling, the rotation of
    outliers, each further probe and the float64 Gram matrix are one more pass each; the singular values come from the
    triangular factor of a QR decomposition that takes one block after the other, which costs one more.

    Attributes:
        matrix: is read anew for every pass.
        left: its float32 Gram matrix, if a pass left it and nobody has asked for it yet.
        left_image: of the vectors that this is probed with, likewise.
    """

    matrix: BlockMatrix
    left: list[Tensor] = field(default_factory=list, repr=False)
    left_image: list[Tensor] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        """One."""
        return 1

    @property
    def first(self) -> BlockMatrix:
        """See :class:`Matrices`."""
        return self.matrix

    @property
    def note(self) -> str:
        """How often it was read so far."""
        return f"; {self.matrix.count}"

    def take(self, indices: Sequence[int]) -> Blocks:  # noqa: ARG002 - there is one
        """See :meth:`Matrices.take`."""
        return self

    def numbers(self) -> Blocks:
        """See :meth:`Matrices.numbers`."""
        return self

    def extents(self) -> Tensor:
        """See :meth:`Matrices.extents`."""
        sums = None if self.dtype == torch.float64 else self._zeros(torch.float32)
        start, found = self._start()[None], []
        image = torch.zeros_like(start)
        for block in self.matrix.blocks():
            found.append(measure(block[None])[0])
            if sums is not None:
                add_gram(self._along(block)[None], sums)
                image += image_of(block[None], start, self.matrix.is_tall)
        self.left[:], self.left_image[:] = ([], []) if sums is None else ([sums], [image])
        largest, squares = torch.stack(found).unbind(1)
        return torch.stack([largest.amax(), squares.sum()])[None]  # amax keeps NaN

    def scaled(self, exponents: Sequence[int]) -> Blocks:
        """See :meth:`Matrices.scaled`."""
        (exponent,) = exponents
        return Blocks(self.matrix.map(lambda block: scale_by_power_of_two(block, exponent), self.dtype))

    def gram(self, dtype: torch.dtype, diagonals: Tensor | None = None, *, unrounded: bool = False) -> Tensor:
        """See :meth:`Matrices.gram`."""
        if self.left and dtype == torch.float32 and diagonals is None:
            return self.left.pop()
        self.left.clear()
        sums = self._zeros(dtype)
        for block in self.matrix.blocks():
            add_gram(self._along(block)[None], sums, unrounded=unrounded)
            if diagonals is not None:
                diagonals += sums_of_squares(block[None], -2 if self.matrix.is_tall else -1)
        return sums

    def plan(self, _spikiness: float = 0.0, /) -> Plan:
        """See :meth:`Matrices.plan`."""
        return FEW_READINGS

    def image(self, x: Tensor) -> Tensor:
        """See :meth:`Matrices.image`; one pass, unless the first one has left it."""
        if self.left_image and torch.equal(x[0], self._start()):
            return self.left_image.pop()
        self.left_image.clear()
        image = torch.zeros_like(x)
        for block in self.matrix.blocks():  # kept one by one, they would hold the heap apart
            image += image_of(block[None], x, self.matrix.is_tall)
        return image

    def rotated(self, basis: OutlierBasis) -> Blocks:
        """See :meth:`Matrices.rotated`; as it is read."""
        from_left = not self.matrix.is_tall
        return Blocks(self.matrix.map(lambda block: rotate(block[None], basis, from_left)[0], basis.v.dtype))

    def factor(self, dtype: torch.dtype) -> Tensor:
        """R (k x k, k the short side) of ``W = Q R`` (or ``W^T = Q R``), in one pass.

        Blocks are appended to the R so far and factored again, so each entry passes through as many Householder
        decompositions as there are blocks; each is backward stable, and their errors are independent (measured: no more
        than that of one decomposition for up to 300 blocks).
        """
        size = min(self.shape)
        factor = torch.zeros(0, size, dtype=dtype, device=self.device)
        for block in self.matrix.blocks():
            for rows in self._along(block).T.split(max(_QR_ROWS * size, _LEAST_QR_ROWS)):
                factor = torch.linalg.qr(torch.cat([factor, rows.to(dtype)]), mode="r").R
        return factor

    def count_not_finite(self) -> int:
        """See :meth:`Matrices.count_not_finite`; one pass."""
        return sum(count_not_finite(block) for block in self.matrix.blocks())

    def _along(self, block: Tensor) -> Tensor:
        """The block as (k, K): its rows are those of the Gram matrix."""
        return block.T if self.matrix.is_tall else block

    def _start(self) -> Tensor:
        """The vectors that its Gram matrix is probed with."""
        return self.plan().start(min(self.shape), self.device)

    def _zeros(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros(1, min(self.shape), min(self.shape), dtype=dtype, device=self.device)
