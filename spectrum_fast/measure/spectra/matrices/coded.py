"""Matrices in codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.measure.ops.decode.coded import SCALE_BLOCK
from spectrum_fast.measure.ops.dispatch import choose_backend
from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.spectra.matrices.dense import Dense, stack
from spectrum_fast.measure.spectra.probes import IN_MEMORY, Plan
from spectrum_fast.measure.spectra.rotation import OutlierBasis
from spectrum_fast.read.formats.codes import Codes

DECODED_BYTES = 256 << 20
"""Numbers that are decoded for one Gram product, where a kernel does not take the codes."""


@dataclass(frozen=True)
class Coded:
    """Matrices in codes; see :class:`Matrices`.

    FP8 on a GPU goes to kernels that take the codes. Everything else is decoded, a few matrices at a time, into memory
    that is used again: so MXFP4, whose Gram product would be slower from the codes. A tile of 128 x 128 needs 256
    numbers for each term of its sums, and decoding a number takes two and a half instructions: 640 cycles of a
    multiprocessor for 128 terms, beside 1024 of its tensor cores. Decoding each number once takes a tenth of that.
    """

    weights: Sequence[Codes]
    note = ""

    def __len__(self) -> int:
        """How many."""
        return len(self.weights)

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`Matrices`."""
        return self.weights[0].shape

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Matrices`."""
        return torch.bfloat16 if self.weights[0].is_mxfp4 else torch.float32

    @property
    def device(self) -> torch.device:
        """See :class:`Matrices`."""
        return self.weights[0].device

    def take(self, indices: Sequence[int]) -> Coded:
        """See :meth:`Matrices.take`."""
        return Coded([self.weights[index] for index in indices])

    def numbers(self) -> Dense:
        """See :meth:`Matrices.numbers`."""
        return Dense([decode(weight) for weight in self.weights])

    def extents(self) -> Tensor:
        """See :meth:`Matrices.extents`."""
        if self._kernels_take_codes():
            from spectrum_fast.measure.ops.extent.triton import measure_block_scaled

            return measure_block_scaled(*self._stacked)
        return torch.cat([measure(decode(weight)[None]) for weight in self.weights])

    def scaled(self, exponents: Sequence[int]) -> Dense:
        """See :meth:`Matrices.scaled`."""
        return self.numbers().scaled(exponents)

    def gram(self, dtype: torch.dtype, diagonals: Tensor | None = None) -> Tensor:
        """See :meth:`Matrices.gram`."""
        if self._kernels_take_codes() and dtype == torch.float32 and diagonals is None:
            from spectrum_fast.measure.ops.gram.triton import gram_block_scaled

            return gram_block_scaled(*self._stacked)
        together = self._together()
        parts = [self.take(range(len(self))[begin : begin + together]) for begin in range(0, len(self), together)]
        shares = [None] * len(parts) if diagonals is None else diagonals.split(together)
        return torch.cat([part.numbers().gram(dtype, share) for part, share in zip(parts, shares, strict=True)])

    @property
    def plan(self) -> Plan:
        """See :class:`Matrices`."""
        return IN_MEMORY

    def image(self, x: Tensor) -> Tensor:
        """See :meth:`Matrices.image`."""
        if self._kernels_take_codes():
            from spectrum_fast.measure.ops.product.triton import multiply_block_scaled

            tall = self.shape[0] > self.shape[1]
            short = multiply_block_scaled(*self._stacked, x, transposed=not tall)
            return multiply_block_scaled(*self._stacked, short, transposed=tall)
        together = self._together()
        pairs = zip(range(0, len(self), together), x.split(together), strict=True)
        return torch.cat([self.take(range(len(self))[i : i + together]).numbers().image(part) for i, part in pairs])

    def rotated(self, basis: OutlierBasis) -> Dense:
        """See :meth:`Matrices.rotated`."""
        return self.numbers().rotated(basis)

    def whole(self) -> None:
        """Nowhere in memory."""

    def factor(self, dtype: torch.dtype) -> Tensor:
        """The matrix itself."""
        return self.numbers().factor(dtype)

    def count_not_finite(self) -> int:
        """See :meth:`Matrices.count_not_finite`."""
        return self.numbers().count_not_finite()

    def _together(self) -> int:
        """How many are decoded at a time."""
        return max(1, DECODED_BYTES // (math.prod(self.shape) * self.dtype.itemsize))

    def _kernels_take_codes(self) -> bool:
        """Whether kernels form extent and Gram product from the codes."""
        first = self.weights[0]
        is_fp8 = first.codes.dtype == torch.float8_e4m3fn and first.block == (SCALE_BLOCK, SCALE_BLOCK)
        return is_fp8 and choose_backend("gram", first.device.type) == "triton"

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        """Bytes (m, rows, columns) and scales."""
        codes = stack([weight.codes.view(torch.uint8) for weight in self.weights])
        return codes, stack([weight.scale for weight in self.weights])
