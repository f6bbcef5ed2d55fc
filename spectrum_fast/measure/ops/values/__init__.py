"""Eigenvalues and eigenvectors of symmetric bands, on the host: a band is small, and cores are idle beside a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module

WIDEST_BAND = 64
"""Half-width up to which there are kernels; a wider band goes to the dense solver of the reference."""

SOLVES = 2
"""Steps of inverse iteration."""


def band_values(bands: Tensor, tolerances: Tensor) -> Tensor:
    """The eigenvalues of symmetric band matrices, to a tolerance.

    Native: to tridiagonal form by Householder reflections that chase each bulge down the band (6 n² b flops, eight
    sweeps in a wave through the cache), then bisection by Sturm counts, as many shifts as a register has lanes at once.

    Args:
        bands: (m, n, b + 1) float64 on the host, ``band[j, d] = B[j + d, j]``, finite; past the end nothing is read.
        tolerances: (m,) float64 >= 0: width of the bracket of each eigenvalue.

    Returns:
        (m, n) float64, ascending.

    Accuracy: half the tolerance, and :func:`rounding_bound`; 2e-14 of the largest is seen.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.

    Source: Schwarz, Numer. Math. 12 (1968); B. Lang, SIAM J. Sci. Comput. 14 (1993), for the chase; LAPACK's dstebz.
    """
    for name, one in (("bands", bands), ("tolerances", tolerances)):
        if one.dtype != torch.float64:
            raise TypeError(f"{name}: expected torch.float64, found {one.dtype}")
    if bands.ndim != 3 or 0 in bands.shape[1:] or tolerances.shape != bands.shape[:1]:
        raise ValueError(f"expected bands (m, n, b + 1) and tolerances (m,), found {bands.shape}, {tolerances.shape}")
    return backend_module("values", bands.device.type).band_values(bands.detach(), tolerances)


def rounding_bound(bands: Tensor) -> Tensor:
    """Worst case of what rounding moves an eigenvalue by, (m,), beside the tolerance: ``2 n (b + 16) eps ||B||_F``.

    A sweep is an orthogonal similarity by reflections of b rows each that touch different rows, so its backward error
    is that of two applications of one, ``(b + 16) eps ||B||_F`` each with the sums of b products; there are n sweeps.
    The counts add the error of a few eps of each entry, which is far less.
    """
    n, width = bands.shape[1:]
    norms = torch.sqrt(bands[:, :, 0].square().sum(1) + 2 * bands[:, :, 1:].square().sum((1, 2)))
    return 2 * n * (width + 15) * torch.finfo(torch.float64).eps * norms


def eigenvectors(bands: Tensor, shifts: Tensor, start: Tensor) -> Tensor:
    """Eigenvectors of symmetric band matrices, those nearest to shifts, by inverse iteration.

    ``y <- (B - x I)^-1 y``, :data:`SOLVES` times, each to unit length. Native: ``B - x I = L D Lᵀ`` without pivots, as
    for counts, as many shifts as a register has lanes at once (n b² flops a shift); reference: blocks of b rows are
    eliminated, with pivots inside these alone.

    Args:
        bands: (m, n, b + 1) float64 on the host, b >= 1, ``band[j, d] = B[j + d, j]``; past the end nothing is read.
        shifts: (m, k) float64.
        start: (n,) float64, what each iteration begins with.

    Returns:
        (m, k, n) float64, rows of unit length.

    Accuracy: a step divides what lies along another eigenvector by its distance from the shift, in units of that of the
    nearest one. What elimination without pivots loses (as :func:`spectrum_fast.measure.ops.sturm.count_below`) only
    residuals show; NaN is possible.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.

    Source: B. N. Parlett, The Symmetric Eigenvalue Problem, ch. 4.
    """
    for name, one in (("bands", bands), ("shifts", shifts), ("start", start)):
        if one.dtype != torch.float64:
            raise TypeError(f"{name}: expected torch.float64, found {one.dtype}")
    if bands.ndim != 3 or bands.shape[2] < 2 or shifts.ndim != 2 or start.shape != bands.shape[1:2]:
        raise ValueError(
            f"expected bands (m, n, b + 1), shifts (m, k) and start (n,), b >= 1, found {tuple(bands.shape)}, "
            f"{tuple(shifts.shape)} and {tuple(start.shape)}"
        )
    return backend_module("values", bands.device.type).eigenvectors(bands, shifts, start)
