"""What the engine asks of matrices, whatever they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.measure.spectra.probes import HALVED, IN_MEMORY, Plan
from spectrum_fast.measure.spectra.rotation import OutlierBasis

NEARLY_SQUARE = 1.5
"""Longer sides over short ones, of matrices whose smallest singular values are near zero."""
LIKE_NOISE = 1.15
"""Spikiness, in units of that of independent entries, of a spectrum that may have one or two values below its threshold
or none (made value projections have up to 1.1, all others 1.18 and more)."""


class Matrices(ABC):
    """Matrices of one shape, type and device; what a kind has no way of its own for is asked of its numbers."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def first(self) -> Any:
        """What has the shape, dtype and device of one of them."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of each matrix."""
        rows, columns = self.first.shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        return self.first.dtype

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.first.device

    @property
    def is_nearly_square(self) -> bool:
        """Whether small singular values weigh most in a bound."""
        return max(self.shape) <= NEARLY_SQUARE * min(self.shape)

    @property
    def note(self) -> str:
        """What a record should say of them beside the method; may be empty."""
        return ""

    def plan(self, spikiness: float = 0.0, /) -> Plan:
        """How the Gram matrix of one is probed: with less care where its spikiness, if told, says that it may be."""
        short, long = sorted(self.shape)
        return HALVED if spikiness > LIKE_NOISE * (1 + short / long) and not self.is_nearly_square else IN_MEMORY

    @abstractmethod
    def take(self, indices: Sequence[int]) -> Matrices:
        """Some of them, in this order."""

    @abstractmethod
    def numbers(self) -> Matrices:
        """The same, none in codes."""

    @abstractmethod
    def extents(self) -> Tensor:
        """Largest entry and sum of squares of each, (m, 2) float64 on their device."""

    def scaled(self, exponents: Sequence[int]) -> Matrices:
        """Each times two to its exponent, exactly wherever the result is a normal number."""
        return self.numbers().scaled(exponents)

    @abstractmethod
    def gram(self, dtype: torch.dtype, diagonals: Tensor | None = None, *, unrounded: bool = False) -> Tensor:
        """Gram matrices (m, k, k) of the short side.

        Args:
            dtype: of the sums.
            unrounded: float32 ones before they are rounded (:func:`spectrum_fast.measure.ops.gram.gram`).
            diagonals: (m, k) float64; what their diagonals are, of float32 weights, is added.
        """

    @abstractmethod
    def image(self, x: Tensor) -> Tensor:
        """``W W^T x`` (``W^T W x`` of a tall matrix) in float64, vectors as rows: (m, p, k) -> (m, p, k)."""

    def rotated(self, basis: OutlierBasis) -> Matrices:
        """``H^T W`` (or ``W H`` when the columns are the short side), in the dtype of the basis."""
        return self.numbers().rotated(basis)

    def whole(self) -> Tensor | None:
        """All their numbers (m, r, c), where these lie in memory as they are."""
        return None

    def factor(self, dtype: torch.dtype) -> Tensor:
        """Of a batch of one: a matrix that has its singular values."""
        return self.numbers().factor(dtype)

    def count_not_finite(self) -> int:
        """Entries that are NaN or infinite."""
        return self.numbers().count_not_finite()
