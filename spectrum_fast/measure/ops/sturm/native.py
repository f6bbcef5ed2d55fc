"""Slicing by the compiled kernels (kernels/sturm*): vector lanes over shifts, OpenMP over groups of lanes.

Same signatures and meaning as :mod:`spectrum_fast.measure.ops.sturm.reference`; arguments are checked by the package's
public functions, dtypes and layout again at the border of the extension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast import _native


def count_below(band: Tensor, shifts: Tensor) -> Tensor:
    """Count eigenvalues below each shift; band (n, b + 1) float32 or float64 on the CPU, shifts (s,) float64.

    Returns:
        (s,) int64.

    Raises:
        TypeError: the band is neither float32 nor float64.
        ValueError: NaN or infinity in the band.
    """
    below = torch.empty(shifts.shape, dtype=torch.int64)
    _native.count_below(band.detach().contiguous(), shifts.detach().contiguous(), below)
    return below


def log_det(band: Tensor, shifts: Tensor) -> Tensor:
    """Sum log(lambda_i - z); band (n, b + 1) float32 or float64 on the CPU, shifts (s,) complex128, Im z >= 0.

    Pivots are computed in the band's precision and multiplied up in double precision; as every argument lies in
    (-pi, 0), the running product crosses the negative real axis exactly where it goes from the lower half plane to
    the upper one, so one logarithm and one arc tangent a shift are enough.

    Returns:
        (s,) complex128, imaginary part not reduced modulo 2 pi.

    Raises:
        TypeError: the band is neither float32 nor float64.
        ValueError: NaN or infinity in the band.
    """
    values = torch.empty(shifts.shape, dtype=torch.complex128)
    _native.log_det(band.detach().contiguous(), shifts.detach().resolve_conj().contiguous(), values)
    return values
