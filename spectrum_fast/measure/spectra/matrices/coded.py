"""Matrices in codes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.measure.ops.decode.coded import SCALE_BLOCK
from spectrum_fast.measure.ops.dispatch import choose_backend
from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.spectra.matrices.dense import Dense, stack
from spectrum_fast.measure.spectra.matrices.matrices import Matrices
from spectrum_fast.read.formats.codes import Codes

DECODED_BYTES = 256 << 20
"""Numbers that are decoded for one Gram product, where a kernel does not take the codes."""


@dataclass(frozen=True)
class Coded(Matrices):
    """Matrices in codes; see :class:`Matrices`.

    FP8 on a GPU goes to kernels that take the codes. Everything else is decoded, a few matrices at a time, into memory
    that is used again: so MXFP4, whose Gram product would be slower from the codes. A tile of 128 x 128 needs 256
    numbers for each term of its sums, and decoding a number takes two and a half instructions: 640 cycles of a
    multiprocessor for 128 terms, beside 1024 of its tensor cores. Decoding each number once takes a tenth of that.
    """

    weights: Sequence[Codes]

    def __len__(self) -> int:
        """How many."""
        return len(self.weights)

    @property
    def first(self) -> Codes:
        """See :class:`Matrices`."""
        return self.weights[0]

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Matrices`."""
        return torch.bfloat16 if self.first.is_mxfp4 else torch.float32

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

    def gram(self, dtype: torch.dtype, diagonals: Tensor | None = None, *, unrounded: bool = False) -> Tensor:
        """See :meth:`Matrices.gram`."""
        if self._kernels_take_codes() and dtype == torch.float32 and diagonals is None:
            from spectrum_fast.measure.ops.gram.triton import gram_block_scaled

            return gram_block_scaled(*self._stacked)
        of = (None if diagonals is None else diagonals[some] for some, _ in self._parts())
        parts = (part.numbers() for _, part in self._parts())
        return torch.cat([part.gram(dtype, own, unrounded=unrounded) for part, own in zip(parts, of, strict=True)])

    def image(self, x: Tensor) -> Tensor:
        """See :meth:`Matrices.image`."""
        if self._kernels_take_codes():
            from spectrum_fast.measure.ops.product.triton import multiply_block_scaled

            tall = self.shape[0] > self.shape[1]
            short = multiply_block_scaled(*self._stacked, x, transposed=not tall)
            return multiply_block_scaled(*self._stacked, short, transposed=tall)
        return torch.cat([part.numbers().image(x[some]) for some, part in self._parts()])

    def _parts(self) -> Iterator[tuple[slice, Coded]]:
        """Those that are decoded at a time, and their places."""
        together = max(1, DECODED_BYTES // (math.prod(self.shape) * self.dtype.itemsize))
        for begin in range(0, len(self), together):
            some = slice(begin, begin + together)
            yield some, Coded(self.weights[some])

    def _kernels_take_codes(self) -> bool:
        """Whether kernels form extent and Gram product from the codes."""
        is_fp8 = self.first.codes.dtype == torch.float8_e4m3fn and self.first.block == (SCALE_BLOCK, SCALE_BLOCK)
        return is_fp8 and choose_backend("gram", self.device.type) == "triton"

    @cached_property
    def _stacked(self) -> tuple[Tensor, Tensor]:
        """Bytes (m, rows, columns) and scales."""
        codes = stack([weight.codes.view(torch.uint8) for weight in self.weights])
        return codes, stack([weight.scale for weight in self.weights])
