"""Slicing: what symmetric band matrices tell about their spectra without their eigenvalues.

Functionals of the eigenvalues lambda_0 <= ... <= lambda_{n-1} of a symmetric band matrix B, each from one
unpivoted factorisation ``B - x I = L D Lᵀ`` a shift (n b² / 2 multiply-adds, every shift independent):

- :func:`count_below`, N(x) = #{i : lambda_i < x}: exact counts at a threshold;
- :func:`narrow`, brackets of order statistics, by counts between their ends;
- :func:`log_abs_det`, log |det(B - z I)| = sum_i log |lambda_i - z|: harmonic in the upper half plane, so integrals of
  it along lines give sums of functions of the eigenvalues.

Band storage: ``band[j, d] = B[j + d, j]`` for d = 0..b, shape (n, b + 1); entries past the end (j + d >= n) are never
read as part of B, whatever they hold. Bands that are sliced more than once are prepared once (:func:`prepare`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module, on_host
from spectrum_fast.measure.ops.sturm.bands import Bands

__all__ = ["Bands", "count_below", "log_abs_det", "narrow", "prepare"]


def prepare(bands: Tensor) -> Bands:
    """Bands to be sliced again and again: what a backend makes of them is made once.

    Args:
        bands: (m, n, b + 1), any real floating dtype (native: float32 or float64), finite; b at most 64 with Triton.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
    """
    if not bands.is_floating_point():
        raise TypeError(f"bands: expected a real floating dtype, found {bands.dtype}")
    if bands.ndim != 3 or bands.shape[1] < 1 or bands.shape[2] < 1:
        raise ValueError(f"bands: expected shape (m, n, b + 1) with n >= 1 and b >= 0, found {tuple(bands.shape)}")
    return Bands(bands.detach().contiguous())


def count_below(bands: Tensor | Bands, shifts: Tensor) -> Tensor:
    """Count the eigenvalues of symmetric band matrices below shifts of each.

    By Sylvester's law of inertia N(x) is the number of negative pivots of the unpivoted LDLᵀ of ``B - x I``.

    The guard: a pivot with ``|d| < eps^(3/4) * max(max_d |band[j, d]|, eps * max |B|)`` is moved to that bound on its
    own side of zero, and an exact zero to minus it (LAPACK's dstebz convention: at an exact eigenvalue the eigenvalue
    itself may be counted). dstebz's own bound, ``safmin * max(1, e²)``, suits tridiagonal matrices only: on a wider
    band a pivot d fills a whole block with entries of size 1 / d, which costs ``eps / d`` in the rows that follow,
    while moving d costs the bound. Measured on bands of the integers -1, 0, 1 (n = 40, b = 2..5) at integer shifts,
    where zero pivots abound: of 300 counts 12 are wrong with the bound eps, 132 with eps², none with eps^(3/4). It is
    relative to the pivot's own column, as a bound relative to max |B| alone would wipe out the bulk of a graded band
    (outliers first).

    Args:
        bands: (m, n, b + 1) as for :func:`prepare`, or prepared. Arithmetic is done in their dtype, half precisions in
            float32.
        shifts: (m, s) float64, on the bands' device; infinite ones count 0 or n.

    Returns:
        (m, s) int64 counts in [0, n], on the bands' device.

    Accuracy: the count of a matrix ``B + E`` with ``|E| = O(eps * g * max |B|)``; the growth g = 1 / min |d| is of the
    order of n for most shifts and at most eps^(-3/4), and E has rank at most b where g is large. Shifts nearer to each
    other than |E| may have counts out of order.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape; on the host, NaN among shifts, NaN or infinity in a band.
        UsageError: a wider band than the backend slices.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.

    Source: B. N. Parlett, The Symmetric Eigenvalue Problem, ch. 3; LAPACK dstebz for the guard.
    """
    prepared = _operands(bands, shifts, torch.float64)
    shifts = shifts.detach()
    if on_host(shifts) and np.isnan(shifts.numpy()).any():
        raise ValueError("shifts: expected numbers, found NaN")
    return backend_module("sturm", shifts.device.type).count_below(prepared, shifts)


def narrow(bands: Tensor | Bands, lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """Narrow brackets of order statistics by counts at points between their ends, of each matrix by itself.

    Points t stand for eigenvalues ``t^2``, so that brackets are of singular values where B is similar to a Gram matrix:
    with ``N(t)`` the number of eigenvalues below ``t^2``, ``N(lo) <= rank < N(hi)`` holds before and after.

    Args:
        bands: (m, n, b + 1) as for :func:`prepare`, or prepared.
        lo: (m, k) float64, at least 0, on the bands' device.
        hi: (m, k) float64, no less than ``lo``, finite. Brackets of two ranks are the same or have no inner point in
            common.
        ranks: (k,) int64, ascending, in [0, n).
        enough: (m, k) float64, widths at which brackets stay as they are.

    Returns:
        lo and hi, of new memory, with ``hi - lo <= enough``, or no number between them.

    Accuracy: that of :func:`count_below`, whose counts are taken to be those of an N that nowhere decreases.

    Raises:
        TypeError, ValueError, UsageError, BackendUnavailableError: as for :func:`count_below`.
    """
    prepared = _operands(bands, lo, torch.float64)
    if not lo.shape == hi.shape == enough.shape or ranks.shape != lo.shape[1:] or ranks.dtype != torch.int64:
        raise ValueError(
            f"brackets: expected lo, hi, enough (m, k) and int64 ranks (k,), found {tuple(lo.shape)}, "
            f"{tuple(hi.shape)}, {tuple(enough.shape)} and {ranks.dtype} {tuple(ranks.shape)}"
        )
    if on_host(lo):
        least, most = lo.numpy(), hi.numpy()
        if not ((least >= 0) & (least <= most) & (most < math.inf)).all():
            raise ValueError("brackets: expected finite 0 <= lo <= hi")
    return backend_module("sturm", lo.device.type).narrow(prepared, lo, hi, ranks, enough)


def log_abs_det(bands: Tensor | Bands, shifts: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Logarithm of ``|det(B - z I)|`` of symmetric band matrices, for z on the real axis and above it.

    ``log |det(B - z I)| = sum_i log |lambda_i - z| = sum_j log |d_j(z)|``, d_j the pivots of the unpivoted complex
    symmetric (not Hermitian) LDLᵀ of ``B - z I``.

    Why none vanishes above the axis. Let Im z = y > 0. The matrix ``B - z I = (B - x I) - i y I`` has a negative
    definite imaginary part, and so has every Schur complement of it: the inverse of one is a diagonal block of
    ``(B - z I)^-1``, whose imaginary part is positive definite, and inversion flips the sign again. A pivot is a
    diagonal entry of a Schur complement, so ``|d_j| >= -Im d_j >= y``; no pivoting is needed, and a pivot below y / 2
    is rounding and moved there. On the axis itself nothing but 1e-32 max |B| (float32: 1e-16) bounds them.

    Args:
        bands: (m, n, b + 1) as for :func:`prepare`, or prepared. Pivots are computed in the complex form of their dtype
            (half precisions in complex64), their logarithms in float64.
        shifts: (m, s) complex128, on the bands' device, finite; Im z >= 0.
        wanted: (m, s) bool on the same device; where False, nothing is asked of the shift and 0 is returned.

    Returns:
        (m, s) float64, on the bands' device.

    Accuracy: ``O(n eps max |B| / dist)`` absolute, dist the distance from z to the nearest eigenvalue of B or of a
    leading block of it, so never worse than with dist = Im z.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape; of shifts that lie on the host also NaN or infinity, and Im z < 0.
        UsageError, BackendUnavailableError: as for :func:`count_below`.

    Source: B. N. Parlett, The Symmetric Eigenvalue Problem, ch. 3; the argument above.
    """
    prepared = _operands(bands, shifts, torch.complex128)
    if wanted is not None and (wanted.dtype != torch.bool or wanted.shape != shifts.shape):
        raise ValueError(f"wanted: expected bool {tuple(shifts.shape)}, found {wanted.dtype} {tuple(wanted.shape)}")
    shifts = shifts.detach().resolve_conj()
    if on_host(shifts):
        z: npt.NDArray[np.complex128] = shifts.numpy()
        fine = np.isfinite(z) & (z.imag >= 0)
        if not (fine if wanted is None else fine | ~wanted.numpy()).all():
            raise ValueError("shifts: expected finite numbers with imaginary part >= 0; conj z gives the same")
    return backend_module("sturm", shifts.device.type).log_abs_det(prepared, shifts, wanted)


def _operands(bands: Tensor | Bands, shifts: Tensor, shift_dtype: torch.dtype) -> Bands:
    """Check what can be seen without looking at numbers; the bands, prepared."""
    prepared = bands if isinstance(bands, Bands) else prepare(bands)
    if shifts.dtype != shift_dtype:
        raise TypeError(f"shifts: expected {shift_dtype}, found {shifts.dtype}; use .to({shift_dtype})")
    count, device = len(prepared.storage), prepared.storage.device
    if shifts.ndim != 2 or shifts.shape[0] != count:
        raise ValueError(f"shifts: expected shape ({count}, s), found {tuple(shifts.shape)}")
    if shifts.device != device:
        raise ValueError(f"shifts: expected on the bands' device {device}, found on {shifts.device}")
    return prepared
