"""All singular values of a batch, each with a bound, from the band that a score was read from."""

from __future__ import annotations

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
    on_host = bands.cpu()
    solver = rounding_bound(on_host)[:, None]
    tolerances = _NARROW * (rounding.eigenvalue_error().cpu() + solver)
    eigenvalues = band_values(on_host, tolerances[:, 0])
    more = (solver + 0.5 * tolerances).to(bands.device)
    values = torch.sqrt(eigenvalues.clamp(min=0)).flip(1).to(bands.device)
    hiding = rounding.floor()[:, None] + torch.sqrt(more)
    errors = rounding.uncertainty(values, more) + rounding.largest_more(values)
    hidden = torch.maximum(errors, hiding + rounding.rise(hiding) + torch.sqrt(more))
    errors = torch.where(values < hiding, hidden, errors)
    return [SingularValues(*pair) for pair in zip(values.cpu().numpy(), errors.cpu().numpy(), strict=True)]
