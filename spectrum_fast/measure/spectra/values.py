"""All singular values of a batch, each with a bound, from the band that a score was read from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.measure.ops.values import band_values, rounding_bound
from spectrum_fast.measure.spectra.record import SingularValues
from spectrum_fast.measure.spectra.rounding import Rounding

_NARROW = 0.02
"""Width of the bracket of an eigenvalue, in units of its uncertainty."""


def read_values(bands: Tensor, rounding: Rounding) -> list[SingularValues]:
    """Every singular value of each matrix.

    Its bound is made of the rounding of Gram product and reduction (Weyl: an eigenvalue moves by no more than the norm
    of what is added), the worst case of the way from band to eigenvalues, and half a bracket. Values below the rounding
    floor may be anything up to it.

    Args:
        bands: (m, n, b + 1) float64, finite.
        rounding: of the Gram matrices and their reduction.
    """
    on_host, rounding = bands.cpu(), rounding.on_host()
    solver = rounding_bound(on_host).numpy()[:, None]
    tolerances = _NARROW * (rounding.eigenvalue_error + solver)
    eigenvalues = band_values(on_host, torch.from_numpy(tolerances[:, 0])).numpy()
    more = solver + 0.5 * tolerances
    values = np.ascontiguousarray(np.sqrt(eigenvalues.clip(0.0))[:, ::-1])
    hiding = rounding.floor + np.sqrt(more)
    errors = rounding.uncertainty(values, more) + rounding.largest_more(values)
    hidden = np.maximum(errors, hiding + rounding.rise(hiding) + np.sqrt(more))
    errors = np.where(values < hiding, hidden, errors)
    return [SingularValues(*pair) for pair in zip(values, errors, strict=True)]
