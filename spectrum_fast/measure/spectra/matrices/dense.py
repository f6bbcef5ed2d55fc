"""Matrices of numbers, and what is computed of numbers for all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.ops.product import multiply
from spectrum_fast.measure.spectra.matrices.matrices import Matrices
from spectrum_fast.measure.spectra.rotation import OutlierBasis, rotate
from spectrum_fast.measure.spectra.scaling import scale_by_power_of_two

_FEW_TERMS = 256
"""Terms of a sum in float32 whose rounding leaves it good to 1e-7."""


@dataclass(frozen=True)
class Dense(Matrices):
    """Matrices of numbers, stacked (m, r, c) or not; see :class:`Matrices`."""

    matrices: Tensor | Sequence[Tensor]

    def __len__(self) -> int:
        """How many."""
        return len(self.matrices)

    @property
    def first(self) -> Any:
        """See :class:`Matrices`."""
        return self._first

    @cached_property
    def _first(self) -> Any:
        return self.matrices[0]

    def take(self, indices: Sequence[int]) -> Dense:
        """See :meth:`Matrices.take`."""
        if list(indices) == list(range(len(self))):
            return self
        return Dense([self.matrices[index] for index in indices])

    def numbers(self) -> Dense:
        """See :meth:`Matrices.numbers`."""
        return self

    def extents(self) -> Tensor:
        """See :meth:`Matrices.extents`."""
        return measure(self.whole())

    def scaled(self, exponents: Sequence[int]) -> Dense:
        """See :meth:`Matrices.scaled`."""
        pairs = zip(self.matrices, exponents, strict=True)
        return Dense([scale_by_power_of_two(matrix, exponent) for matrix, exponent in pairs])

    def gram(self, dtype: torch.dtype, diagonals: Tensor | None = None, *, unrounded: bool = False) -> Tensor:
        """See :meth:`Matrices.gram`."""
        stacked = self.whole()
        if diagonals is not None:
            diagonals += sums_of_squares(stacked, -1 if stacked.shape[-2] <= stacked.shape[-1] else -2)
        return gram(stacked, out_dtype=dtype, unrounded=unrounded)

    def image(self, x: Tensor) -> Tensor:
        """See :meth:`Matrices.image`."""
        return image_of(self.whole(), x)

    def rotated(self, basis: OutlierBasis) -> Dense:
        """See :meth:`Matrices.rotated`."""
        return Dense(rotate(self.whole(), basis))

    def whole(self) -> Tensor:
        """See :meth:`Matrices.whole`; single ones are stacked once, so that each step is one launch."""
        return self._stacked

    @cached_property
    def _stacked(self) -> Tensor:
        return self.matrices if isinstance(self.matrices, Tensor) else stack(self.matrices)

    def factor(self, dtype: torch.dtype) -> Tensor:
        """The matrix itself."""
        return self.matrices[0].to(dtype)

    def count_not_finite(self) -> int:
        """See :meth:`Matrices.count_not_finite`."""
        return count_not_finite(self.whole())


def image_of(weights: Tensor, x: Tensor, is_tall: bool | None = None) -> Tensor:
    """``W W^T x``, or ``W^T W x`` if tall: by default where there are more rows than columns."""
    tall = weights.shape[1] > weights.shape[2] if is_tall is None else is_tall
    return multiply(weights, multiply(weights, x, transposed=not tall), transposed=tall)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """As ``torch.stack``; a view where they lie one behind the other in one memory, as a scan on a GPU puts them."""
    first, step = tensors[0], tensors[0].numel()
    if len(tensors) == 1:
        return first[None]
    memory = first.untyped_storage().data_ptr()
    for place, tensor in enumerate(tensors):
        follows = tensor.storage_offset() == first.storage_offset() + place * step and tensor.is_contiguous()
        if not follows or tensor.untyped_storage().data_ptr() != memory:
            return torch.stack(list(tensors))
    return first.as_strided((len(tensors), *first.shape), (step, *first.stride()))


def sums_of_squares(weights: Tensor, dim: int) -> Tensor:
    """Sums along rows (-1) or columns (-2) of (m, r, c) float32: relative error 1e-7, of either sign.

    Float64 on a GPU; on a CPU sums of 256 in float32, and of these in float64, which reads eight times as fast.
    """
    if weights.is_cuda:  # torch makes a float64 copy of what it sums: of one matrix at a time
        return torch.stack([torch.linalg.vector_norm(one, dim=dim, dtype=torch.float64) for one in weights]).square()
    if dim == -2:
        squares = [rows.square().sum(-2).to(torch.float64) for rows in weights.split(_FEW_TERMS, dim=-2)]
        return torch.stack(squares).sum(0)
    parts = weights.shape[-1] // _FEW_TERMS
    whole, rest = weights[..., : parts * _FEW_TERMS], weights[..., parts * _FEW_TERMS :]
    norms = torch.linalg.vector_norm(whole.unflatten(-1, (parts, _FEW_TERMS)), dim=-1).to(torch.float64)
    return norms.square().sum(-1) + torch.linalg.vector_norm(rest, dim=-1).to(torch.float64).square()


def count_not_finite(matrix: Tensor) -> int:
    """Entries that are NaN or infinite."""
    return int((~torch.isfinite(matrix)).sum())
