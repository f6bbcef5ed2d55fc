"""Slicing by the compiled kernels (kernels/sturm): vector lanes over shifts, OpenMP over groups of lanes.

Bands are float32 or float64; NaN or infinity in one is found at the border of the extension. A band is scaled as it is
packed for a call, so nothing is prepared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native
from spectrum_fast.measure.ops.border import passed
from spectrum_fast.measure.ops.sturm.bands import Bands


def count_below(bands: Bands, shifts: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.count_below`."""
    below = torch.empty(shifts.shape, dtype=torch.int64)
    _native.count_below(*passed(bands.storage, shifts.contiguous(), below))
    return below


def narrow(bands: Bands, lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`spectrum_fast.measure.ops.sturm.narrow`: all rounds of a matrix in one call, a band packed once.

    A bracket that holds one eigenvalue is split around the zero of the determinant in it, which the counts' own sweeps
    give: eight brackets take 11 rounds of eight shifts where halving took 16.
    """
    lo, hi = lo.clone(memory_format=torch.contiguous_format), hi.clone(memory_format=torch.contiguous_format)
    _native.narrow(*passed(bands.storage, lo, hi, ranks.contiguous(), enough.contiguous()))
    return lo, hi


def log_abs_det(bands: Bands, shifts: Tensor, wanted: Tensor | None = None) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.log_abs_det`.

    Squared magnitudes of pivots in the band's precision are multiplied up in double precision: one logarithm a shift.
    Real shifts are swept in real arithmetic.
    """
    values = torch.empty(shifts.shape, dtype=torch.float64)
    asked = None if wanted is None else wanted.contiguous()
    _native.log_abs_det(*passed(bands.storage, shifts.contiguous(), values, asked))
    return values
