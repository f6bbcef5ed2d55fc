"""Products of stored matrices and of bands with a few vectors, in float64 whatever the matrices are stored in.

What they are for: a Gram matrix in float32 is held to the weights by ``G x - W (Wᵀ x)``, which says how far rounding
has moved it on the matrix at hand (:mod:`spectrum_fast.measure.spectra.probes`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module, check_weights


def multiply(weights: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """``A x`` of each matrix with each of its vectors, or ``Aᵀ x``.

    Args:
        weights: (m, r, c), float64, float32, float16 or bfloat16, r, c >= 1; a batch that is not contiguous is copied.
        x: (m, p, c) float64, vectors as rows; (m, p, r) if transposed.
        transposed: multiply by the transpose.

    Returns:
        (m, p, r) float64, (m, p, c) if transposed, on the weights' device.

    Accuracy: products and sums in float64, ``|error| <= (c + 8) 2^-53 |A| |x|`` entrywise, c the length of the sums.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    check_weights(weights)
    if x.dtype != torch.float64:
        raise TypeError(f"x: expected torch.float64, found {x.dtype}")
    length = weights.shape[1 if transposed else 2]
    if x.ndim != 3 or len(x) != len(weights) or x.shape[2] != length:
        raise ValueError(f"x: expected shape ({len(weights)}, p, {length}), found {tuple(x.shape)}")
    return backend_module("product", weights.device.type).multiply(weights.detach(), x, transposed=transposed)


def multiply_band(bands: Tensor, x: Tensor) -> Tensor:
    """``B x`` of each symmetric band with each of its vectors.

    Args:
        bands: (m, n, b + 1) float64, ``band[j, d] = B[j + d, j]``, b >= 1, zeros past the end.
        x: (m, p, n) float64, vectors as rows.

    Returns:
        (m, p, n) float64, on the bands' device.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    for name, one in (("bands", bands), ("x", x)):
        if one.dtype != torch.float64:
            raise TypeError(f"{name}: expected torch.float64, found {one.dtype}")
    if bands.ndim != 3 or x.ndim != 3 or x.shape[::2] != bands.shape[:2]:
        raise ValueError(f"expected bands (m, n, b + 1) and x (m, p, n), found {tuple(bands.shape)}, {tuple(x.shape)}")
    return backend_module("product", bands.device.type).multiply_band(bands, x)
