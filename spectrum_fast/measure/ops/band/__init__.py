"""Dense symmetric matrix -> band matrix with the same eigenvalues, by blocks of Householder reflections."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import backend_module, choose_backend

CARRIED = 8
"""Vectors that are taken along."""


def reduce_to_band(matrices: Tensor, half_width: int, carried: Tensor | None = None, vectors: bool = False) -> Tensor:
    """Reduce symmetric matrices to bands of half-width b by orthogonal similarity; DESTROYS ``matrices``.

    For each panel P of b columns below its diagonal block: ``P = Q [R; 0]`` with ``Q = I - V T Vᵀ`` (float64, also for
    float32 matrices), then ``A <- Qᵀ A Q = A - V Zᵀ - Z Vᵀ`` with ``Y = A V T`` and ``Z = Y - 1/2 V (Tᵀ Vᵀ Y)``.
    4/3 n³ flops, all but O(n² b) of them in products of the size of the matrix.

    Args:
        matrices: (m, n, n), n >= 1, float32 or float64, symmetric in both halves, finite, contiguous. Their contents
            are undefined afterwards, but for ``vectors``.
        half_width: b >= 1 (at most 64 with Triton). Matrices with n <= b + 1 are copied.
        carried: (m, 8, n) float64, contiguous: vectors of each matrix as rows, each of which becomes ``Qᵀ x``, Q the
            product of all panels', in float64. ``Qᵀ (A x) - B (Qᵀ x)`` then says how far B is from ``Qᵀ A Q``.
        vectors: whether each row j of ``matrices`` becomes the Householder vector of column j, V[:, j] from the first
            row of its panel on, in their dtype (zeros where nothing is reflected).

    Returns:
        (m, n, b + 1) in the dtype of the matrices, lower band storage: ``band[j, d] = B[j + d, j]``, zeros past the
        end.

    Accuracy: the eigenvalues of B are those of A + E with ``||E||_F = O(eps ||A||_F)``, eps of the dtype. Measured
    largest eigenvalue error: 8 eps ||A||_F over random, graded, rank-deficient and tiny matrices (n <= 300); where all
    entries are equal, so that rounding errors have one sign, 0.1 n eps ||A||_F (reference 0.4 n). With three bfloat16
    products (chosen on AMX for float32): 12 eps ||A||_F.

    Raises:
        TypeError: neither float32 nor float64.
        ValueError: not square, empty, not contiguous, or ``half_width`` < 1.
        UsageError: a wider band than the backend makes.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.

    Source: C. Bischof, B. Lang, X. Sun, A framework for symmetric band reduction, 2000; G. Ballard et al.,
    Reconstructing Householder vectors from tall-skinny QR, 2014.
    """
    if matrices.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"matrices: expected torch.float32 or torch.float64, found {matrices.dtype}")
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] == 0:
        raise ValueError(f"matrices: expected shape (m, n, n) with n >= 1, found {tuple(matrices.shape)}")
    if not matrices.is_contiguous():
        raise ValueError(f"matrices: expected a contiguous tensor, found strides {matrices.stride()}")
    if half_width < 1:
        raise ValueError(f"half_width: expected at least 1, found {half_width}")
    wanted = (len(matrices), CARRIED, matrices.shape[1])
    if carried is not None and (carried.shape != wanted or carried.dtype != torch.float64):
        raise ValueError(f"carried: expected {wanted} in float64, found {tuple(carried.shape)} in {carried.dtype}")
    if carried is not None and not carried.is_contiguous():
        raise ValueError(f"carried: expected a contiguous tensor, found strides {carried.stride()}")
    return backend_module("band", matrices.device.type).reduce_to_band(matrices.detach(), half_width, carried, vectors)


def turn_back(vectors: Tensor, half_width: int, x: Tensor) -> Tensor:
    """``Q x`` of vectors in the coordinates of the band, ``A = Q B Qᵀ`` but for rounding.

    Args:
        vectors: (m, n, n), what :func:`reduce_to_band` left of its matrices where it was asked for ``vectors``.
        half_width: of the bands.
        x: (m, p, n) float64, vectors as rows.

    Returns:
        (m, p, n) float64, of new memory. T is made anew of V as it was rounded, so Q is orthogonal to float64.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape.
        BackendUnavailableError: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`.
    """
    if vectors.dtype not in (torch.float32, torch.float64) or x.dtype != torch.float64:
        raise TypeError(f"expected float32 or float64 vectors and float64 x, found {vectors.dtype}, {x.dtype}")
    if vectors.ndim != 3 or x.ndim != 3 or x.shape[::2] != vectors.shape[:2] or vectors.shape[1] != vectors.shape[2]:
        raise ValueError(f"expected vectors (m, n, n) and x (m, p, n), found {tuple(vectors.shape)}, {tuple(x.shape)}")
    if half_width < 1:
        raise ValueError(f"half_width: expected at least 1, found {half_width}")
    return backend_module("band", x.device.type).turn_back(vectors, half_width, x)


def on_matrix_units() -> bool:
    """Whether a CPU's matrix units reduce float32 matrices here."""
    return choose_backend("band", "cpu") == "native" and backend_module("band", "cpu").on_matrix_units()
