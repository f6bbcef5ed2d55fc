"""What a batch is made of: matrices of one shape and type, as numbers or still in their codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode.coded import CodedWeight
from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.spectra.batched.operations import (
    coded_extent,
    coded_gram,
    takes_codes,
)
from spectrum_fast.measure.spectra.measure import Extent

DECODED_BYTES = 256 << 20
"""Numbers that are decoded for one Gram product, where a kernel does not take the codes."""


class Weights(Protocol):
    """Matrices of one shape, type and device."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]:
        """Of each matrix."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        ...

    def take(self, indices: Sequence[int]) -> Weights:
        """Some of them, in this order."""
        ...

    def extents(self) -> list[Extent]:
        """Largest entry and sum of squares of each, with one transfer."""
        ...

    def gram(self) -> Tensor:
        """Float32 Gram matrices (m, k, k), k the short side."""
        ...

    def numbers(self, index: int) -> Tensor:
        """One of them, decoded."""
        ...

    def stacked(self) -> Tensor:
        """All of them, decoded: (m, rows, columns)."""
        ...


@dataclass(frozen=True)
class PlainWeights:
    """Matrices of numbers, stacked (m, rows, columns) or not; see :class:`Weights`."""

    matrices: Tensor | Sequence[Tensor]

    def __len__(self) -> int:
        """How many."""
        return len(self.matrices)

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`Weights`."""
        rows, columns = self.matrices[0].shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Weights`."""
        return self.matrices[0].dtype

    @property
    def device(self) -> torch.device:
        """See :class:`Weights`."""
        return self.matrices[0].device

    def take(self, indices: Sequence[int]) -> PlainWeights:
        """See :meth:`Weights.take`."""
        if list(indices) == list(range(len(self))):
            return self
        return PlainWeights([self.matrices[index] for index in indices])

    def extents(self) -> list[Extent]:
        """See :meth:`Weights.extents`."""
        return _extents(torch.cat([measure(matrix[None]) for matrix in self.matrices]))

    def gram(self) -> Tensor:
        """See :meth:`Weights.gram`."""
        return gram(self.stacked())

    def numbers(self, index: int) -> Tensor:
        """See :meth:`Weights.numbers`."""
        return self.matrices[index]

    def stacked(self) -> Tensor:
        """See :meth:`Weights.stacked`."""
        return self.matrices if isinstance(self.matrices, Tensor) else torch.stack(list(self.matrices))


@dataclass(frozen=True)
class CodedWeights:
    """Matrices in codes; see :class:`Weights`.

    FP8 on a GPU goes to kernels that take the codes. Everything else is decoded, a few matrices at a time, into memory
    that is used again: so MXFP4, whose Gram product would be slower from the codes. A tile of 128 x 128 needs 256
    numbers for each term of its sums, and decoding a number takes two and a half instructions: 640 cycles of a
    multiprocessor for 128 terms, beside 1024 of its tensor cores. Decoding each number once takes a tenth of that.
    """

    weights: Sequence[CodedWeight]

    def __len__(self) -> int:
        """How many."""
        return len(self.weights)

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`Weights`."""
        return self.weights[0].shape

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Weights`."""
        return torch.float32 if self.weights[0].is_fp8 else torch.bfloat16

    @property
    def device(self) -> torch.device:
        """See :class:`Weights`."""
        return self.weights[0].device

    def take(self, indices: Sequence[int]) -> CodedWeights:
        """See :meth:`Weights.take`."""
        return CodedWeights([self.weights[index] for index in indices])

    def extents(self) -> list[Extent]:
        """See :meth:`Weights.extents`."""
        if takes_codes(self.weights[0]):
            return _extents(coded_extent(self.weights))
        return _extents(torch.cat([measure(weight.decode()[None]) for weight in self.weights]))

    def gram(self) -> Tensor:
        """See :meth:`Weights.gram`."""
        if takes_codes(self.weights[0]):
            return coded_gram(self.weights)
        rows, columns = self.shape
        together = max(1, DECODED_BYTES // (rows * columns * self.dtype.itemsize))
        parts = [self.weights[begin : begin + together] for begin in range(0, len(self), together)]
        return torch.cat([gram(CodedWeights(part).stacked()) for part in parts])

    def numbers(self, index: int) -> Tensor:
        """See :meth:`Weights.numbers`."""
        return self.weights[index].decode()

    def stacked(self) -> Tensor:
        """See :meth:`Weights.stacked`."""
        return torch.stack([weight.decode() for weight in self.weights])


def as_weights(weights: Tensor | Sequence[Tensor | CodedWeight]) -> Weights:
    """A batch of what a caller has.

    Raises:
        TypeError: some are numbers and some are in codes.
    """
    if isinstance(weights, Tensor):
        return PlainWeights(weights.detach())
    coded = [weight for weight in weights if isinstance(weight, CodedWeight)]
    plain = [weight.detach() for weight in weights if isinstance(weight, Tensor)]
    if coded and plain:
        raise TypeError(f"weights: expected one kind, found {len(plain)} of numbers and {len(coded)} in codes")
    return CodedWeights(coded) if coded else PlainWeights(plain)


def _extents(measured: Tensor) -> list[Extent]:
    """(m, 2) largest entries and sums of squares, read in one transfer."""
    return [Extent(largest, 0, total) for largest, total in measured.tolist()]
