"""One matrix as its two factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.spectra.matrices.dense import Dense


@dataclass(frozen=True)
class Factored(Dense):
    """One matrix as its two factors, of which nothing but the SVD of its core is taken; see :class:`Matrices`.

    Attributes:
        factors: of it; ``matrices`` is empty, the product is made for whoever asks for it.
    """

    factors: FactoredMatrix = field(kw_only=True)

    def __len__(self) -> int:
        """One."""
        return 1

    @property
    def first(self) -> FactoredMatrix:
        """See :class:`Matrices`."""
        return self.factors

    def take(self, indices: Sequence[int]) -> Factored:  # noqa: ARG002
        """See :meth:`Matrices.take`."""
        return self

    def extents(self) -> Tensor:
        """See :meth:`Matrices.extents`; the largest entry is bounded."""
        return torch.tensor([self.factors.extent()], dtype=torch.float64)

    def scaled(self, exponents: Sequence[int]) -> Factored:
        """See :meth:`Matrices.scaled`."""
        return replace(self, factors=self.factors.scaled(exponents[0]))

    def whole(self) -> Tensor:
        """See :meth:`Matrices.whole`."""
        return self.factors.whole()[None]

    def factor(self, dtype: torch.dtype) -> Tensor:
        """Its core."""
        return self.factors.core().to(dtype)
