"""The band reduction by the compiled kernels (kernels/band): update and product fused in one sweep a panel."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast import _native
from spectrum_fast.measure.ops.border import passed
from spectrum_fast.measure.ops.memory import empty
from spectrum_fast.measure.ops.product.native import filled


def reduce_to_band(matrices: Tensor, half_width: int, carried: Tensor | None = None, vectors: bool = False) -> Tensor:
    """Bands (m, n, b + 1), the same bits whenever the number of threads is the same.

    Only the lower half is read; half of n² elements of scratch memory are used instead of the matrices' own.
    """
    bands = empty(*matrices.shape[:2], half_width + 1, dtype=matrices.dtype)
    _native.reduce_to_band(*passed(matrices, bands), carried=passed(carried)[0], vectors=vectors)
    return bands


def turn_back(vectors: Tensor, half_width: int, x: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.band.turn_back` (kernels/product)."""
    turned = filled(x).clone()
    _native.turn_back(*passed(vectors.contiguous(), turned), half_width=half_width)
    return turned[:, : x.shape[1]]


def on_matrix_units() -> bool:
    """Whether the kernel chosen for float32 multiplies on AMX."""
    return _native.band_kernel().startswith("amx")
