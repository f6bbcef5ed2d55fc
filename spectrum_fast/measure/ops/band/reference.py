"""The band reduction in torch: the readable form, on any device, in float32 or float64.

Same signature and meaning as :func:`spectrum_fast.measure.ops.band.reduce_to_band`, which checks the arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEARLY_ORTHONORMAL = 1e-2
"""Largest entry of ``Qᵀ Q - I`` after one pass of CholeskyQR for which the second pass is orthonormal to working
accuracy (its error falls from d to d² + eps); beyond it, the panel is factored column by column."""


def reduce_to_band(matrices: Tensor, half_width: int) -> Tensor:
    """Bands (m, n, b + 1), one matrix after the other, one panel of b columns after the other, in place."""
    bands = [_reduce(matrix, half_width) for matrix in matrices]
    return torch.stack(bands) if bands else matrices.new_zeros(*matrices.shape[:2], half_width + 1)


def _reduce(A: Tensor, b: int) -> Tensor:
    n, dtype = A.shape[0], A.dtype
    column = 0
    while n - column > b + 1:
        begin = column + b
        panel = A[begin:, column:begin].to(torch.float64)
        V, T, R = factor_panel(panel)
        A[begin:, column:begin] = R.to(dtype)
        A[column:begin, begin:] = R.T.to(dtype)
        trailing = A[begin:, begin:]
        V32 = V.to(dtype)
        Y = (trailing @ V32).to(torch.float64) @ T
        Z = (Y - 0.5 * V @ (T.T @ (V.T @ Y))).to(dtype)
        trailing -= V32 @ Z.T
        trailing -= Z @ V32.T
        column = begin
    return read_band(A, b)


def read_band(matrix: Tensor, half_width: int) -> Tensor:
    """Copy the lower band of (n, n) to (n, b + 1) storage, ``band[j, d] = matrix[j + d, j]``, zeros past the end."""
    n = matrix.shape[0]
    band = matrix.new_zeros((n, half_width + 1))
    for d in range(min(half_width, n - 1) + 1):
        band[: n - d, d] = matrix.diagonal(-d)
    return band


def factor_panel(panel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factor P = Q [R; 0] with Q = I - V T Vᵀ orthogonal.

    CholeskyQR2 and Householder reconstruction; where the columns of P are numerically dependent (condition above about
    1e7 after scaling them to equal length) or P is wider than tall, Householder reflections column by column.

    Args:
        panel: (m, b) float64.

    Returns:
        V (m, k) unit lower trapezoidal, T (k, k) upper triangular, and [R; 0] (m, b), R upper trapezoidal.
    """
    largest = float(panel.abs().max())
    if largest == 0.0:
        return panel[:, :0], panel[:0, :0], panel
    # An exact scaling, so that squares neither overflow nor vanish.
    exponent = int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent)
    half, rest = exponent // 2, exponent - exponent // 2
    scaled = panel * 2.0**-half * 2.0**-rest
    factors = reconstruct_householder(scaled) if panel.shape[0] >= panel.shape[1] else None
    V, T, R = reflect_columns(scaled) if factors is None else factors
    return V, T, R * 2.0**half * 2.0**rest


def reconstruct_householder(panel: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """CholeskyQR2, then V and T from the orthonormal factor; None if the first pass is too far from orthonormal.

    With S = diag(+-1) opposite in sign to the pivots, the LU factors of ``Q - [S; 0] = V U`` (no pivoting needed: no
    pivot is smaller than 1) give ``T = -U S V_top^-T``, and ``P = (I - V T Vᵀ) [S R; 0]``.

    Source: G. Ballard et al., Reconstructing Householder vectors from tall-skinny QR, 2014.
    """
    b = panel.shape[1]
    eye = torch.eye(b, dtype=panel.dtype, device=panel.device)
    R = eye
    Q = panel
    for step in range(2):
        inner = Q.T @ Q
        if step == 1 and not bool(((inner - eye).abs() <= NEARLY_ORTHONORMAL).all()):
            return None
        lower, info = torch.linalg.cholesky_ex(inner)
        if int(info) != 0:
            return None
        Q = torch.linalg.solve_triangular(lower.T, Q, upper=True, left=False)
        R = lower.T @ R
    work = Q[:b].clone()
    signs = torch.ones(b, dtype=panel.dtype, device=panel.device)
    for k in range(b):
        signs[k] = -1.0 if float(work[k, k]) >= 0.0 else 1.0
        work[k, k] -= signs[k]
        work[k + 1 :, k] /= work[k, k].clone()
        work[k + 1 :, k + 1 :] -= torch.outer(work[k + 1 :, k], work[k, k + 1 :])
    top, U = work.tril(-1) + eye, work.triu()
    V = torch.cat([top, torch.linalg.solve_triangular(U, Q[b:], upper=True, left=False)])
    T = torch.linalg.solve_triangular(top.T, -U * signs, upper=True, left=False, unitriangular=True)
    return V, T, _pad(signs[:, None] * R, panel)


def reflect_columns(panel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Householder reflections column by column: unconditionally stable, for any shape and rank."""
    m, b = panel.shape
    work, count = panel.clone(), min(m - 1, b)
    V = panel.new_zeros((m, count))
    tau = panel.new_zeros(count)
    for j in range(count):
        if not bool(work[j + 1 :, j].any()):
            continue
        # Each column is scaled for itself: where columns are dependent, what is left of one is a rounding error of a
        # rounding error, down to numbers whose squares vanish.
        column = work[j:, j] / work[j:, j].abs().max()
        head, tail = float(column[0]), column[1:]
        norm = (head * head + float(tail @ tail)) ** 0.5
        beta = -norm if head >= 0.0 else norm
        tau[j] = (beta - head) / beta
        V[j, j] = 1.0
        V[j + 1 :, j] = tail / (head - beta)
        work[j:, j:] -= tau[j] * torch.outer(V[j:, j], V[j:, j] @ work[j:, j:])
        work[j + 1 :, j] = 0.0
    T = torch.diag(tau)
    inner = V.T @ V
    for j in range(1, count):
        T[:j, j] = -tau[j] * (T[:j, :j] @ inner[:j, j])
    return V, T, work.triu()


def _pad(R: Tensor, like: Tensor) -> Tensor:
    """R (b, b) on top of zeros, in the shape of ``like``."""
    padded = torch.zeros_like(like)
    padded[: R.shape[0]] = R
    return padded
