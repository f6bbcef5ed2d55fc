"""Eigenvalues and eigenvectors of band matrices by the compiled kernels (kernels/values)."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native
from spectrum_fast.measure.ops.border import passed
from spectrum_fast.measure.ops.memory import empty
from spectrum_fast.measure.ops.values import SOLVES, WIDEST_BAND, reference


def band_values(bands: Tensor, tolerances: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.values.band_values`."""
    if bands.shape[2] > WIDEST_BAND + 1:
        return reference.band_values(bands, tolerances)
    values = empty(*bands.shape[:2], dtype=torch.float64)
    _native.band_values(*passed(bands.contiguous(), tolerances.contiguous(), values))
    return values


def eigenvectors(bands: Tensor, shifts: Tensor, start: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.values.eigenvectors`."""
    vectors = start.repeat(*shifts.shape, 1)
    _native.iterate_inverse(*passed(bands.contiguous(), shifts.contiguous(), vectors), steps=SOLVES)
    return vectors
