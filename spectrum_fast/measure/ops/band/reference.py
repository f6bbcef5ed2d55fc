"""The band reduction in torch operations: readable, on any device, and the model of the GPU's kernels, step by step.

A panel of b columns below the diagonal block is factored as ``P = Q [R; 0]`` with ``Q = I - V T Vᵀ`` orthogonal, by
CholeskyQR2 and Householder reconstruction in float64; where its columns are numerically dependent (condition above
about 5e5 after scaling them to equal length) or it is wider than tall, it is *broken* and reflected column by column,
which is unconditionally stable. Then ``A <- A - V Zᵀ - Z Vᵀ`` with ``Y = A V T`` and ``Z = Y - 1/2 V Tᵀ (Vᵀ Y)``; the
update of one panel is applied with the next one's product, or those of a group of panels together: then ``A V`` is
taken of the matrix as it lies and corrected by ``V_k (Z_kᵀ V) + Z_k (V_kᵀ V)`` of each panel k that waits. Names,
workspace and meaning of the steps are those of ``device_kernels``; batches go by broadcasting, and the tensors are
asked for values where panels are broken only.

Source: G. Ballard et al., Reconstructing Householder vectors from tall-skinny QR, 2014; H. Wang et al., Improving
tridiagonalization performance on GPU architectures, PPoPP 2025 (block size detached from band width).
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band.panels import (
    factor_less_signs,
    reduce_batch,
    reduce_panels,
    triangular_factor,
)
from spectrum_fast.measure.ops.band.workspace import R1, TOP, V_SCALE, M, T, Workspace, allocate

DEPENDENT = 1e-14
"""A pivot of the Gram matrix of equally long columns that small is rounding error."""
NEARLY_ORTHONORMAL = 1e-4
"""Largest entry of ``Q1ᵀ Q1 - I`` served: condition of the scaled panel about 5e5. With the kernels' explicit inverse,
3e-3 left 95 eps ||A||_F in a float64 matrix, below 2e-4 it left 3 (tests/measure/ops/test_triton_band.py)."""


def reduce_to_band(matrices: Tensor, half_width: int, carried: Tensor | None = None, vectors: bool = False) -> Tensor:
    """Bands (m, n, b + 1) of any half-width, with products of the size of the matrix in its own dtype."""
    return reduce_in_torch(matrices, half_width, carried, split=False, vectors=vectors)


def turn_back(vectors: Tensor, half_width: int, x: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.band.turn_back`, a panel at a time."""
    b, n, turned = half_width, x.shape[2], x.clone()
    for column in reversed(range(0, max(n - b - 1, 0), b)):
        v = vectors[:, column : column + b, column + b :].mT
        rows, exact = turned[:, :, column + b :], v.to(torch.float64)
        rows -= rows @ exact @ triangular_factor(v).mT @ exact.mT
    return turned


def reduce_in_torch(
    matrices: Tensor, half_width: int, carried: Tensor | None, *, split: bool | None, vectors: bool = False
) -> Tensor:
    """Bands; ``split``: float32 products in float16 halves, as the kernels form them (None: as they would)."""
    steps = sys.modules[__name__]

    def run(batch: Tensor) -> Tensor:
        return reduce_panels(allocate(batch, half_width, split, carried), steps, vectors)

    return reduce_batch(matrices, half_width, run)


def gather_panel(w: Workspace, index: int) -> None:
    """P, the diagonal block of the band, and Pᵀ P; updates that wait are applied to both."""
    b, column, begin = w.half_width, index * w.half_width, (index + 1) * w.half_width
    block = w.matrix[:, column:, column:begin].to(torch.float64)
    waiting = w.pending(index)
    for v, z in zip(w.basis[waiting, :, column:, :b], w.z[waiting, :, column:, :b], strict=True):
        block = block - v @ z[:, :b].mT - z @ v[:, :b].mT
    for d in range(b):
        w.band[:, column : begin - d, d] = block[:, :b].diagonal(-d, 1, 2).to(w.band.dtype)
    panel = w.panel[:, begin:]
    panel.zero_()
    panel[:, :, :b] = block[:, b:]
    torch.matmul(panel.mT, panel, out=w.inner)


def factor_gram(w: Workspace, index: int) -> None:
    """R1 from Pᵀ P = R1ᵀ R1, columns scaled to equal length; broken panels marked."""
    tall = w.order - (index + 1) * w.half_width >= w.half_width
    norms = w.inner.diagonal(0, 1, 2).sqrt()
    pad = torch.arange(w.width, device=norms.device) >= w.half_width
    sound = (norms > 0) & (norms < torch.inf)
    lengths = torch.where(sound, norms, 1.0)
    scaled = w.inner / lengths[:, :, None] / lengths[:, None, :]
    scaled.diagonal(0, 1, 2)[:] = 1.0
    upper, fine = _cholesky(scaled)
    w.broken[:] = (~(fine & (sound | pad).all(1)) | (not tall)).to(torch.int32)
    w.small[R1] = upper * lengths[:, None, :]


def orthonormalise(w: Workspace, index: int) -> None:
    """Q1 = P R1^-1, and Q1ᵀ Q1."""
    begin = (index + 1) * w.half_width
    q = w.basis[w.place(index), :, begin:]
    q[:] = torch.linalg.solve_triangular(w.small[R1], w.panel[:, begin:], upper=True, left=False)
    torch.matmul(q.mT, q, out=w.inner)


def reconstruct(w: Workspace, index: int) -> None:
    """V_top, M (V_rest = Q1_rest M), T and the band's R from Q1 and Q1ᵀ Q1; broken panels marked.

    With ``Q = Q1 R2^-1`` orthonormal and S = diag(+-1) opposite in sign to the pivots, the LU factors of
    ``Q_top - S = L U`` (no pivoting needed: no pivot is smaller than 1) give ``V = [L; Q_rest U^-1]``,
    ``T = -U S L^-T`` and ``P = (I - V T Vᵀ) [S R; 0]``.
    """
    b, n, begin = w.half_width, w.order, (index + 1) * w.half_width
    eye = torch.eye(w.width, dtype=torch.float64, device=w.inner.device)
    at = torch.arange(w.width, device=w.inner.device)
    pad = (at >= b)[:, None] & (at >= b)[None, :]
    inner = torch.where(pad, eye, w.inner)
    w.broken.bitwise_or_((~((inner - eye).abs().amax((1, 2)) <= NEARLY_ORTHONORMAL)).to(torch.int32))
    fine = (w.broken == 0)[:, None, None]
    r2, _ = _cholesky(torch.where(fine, inner, eye))
    top = torch.zeros_like(inner)
    rows = min(b, n - begin)
    top[:, :rows] = torch.where(fine, w.basis[w.place(index), :, begin : begin + rows], 0.0)
    q = torch.where(pad, eye, torch.linalg.solve_triangular(r2, top, upper=True, left=False))
    lower, upper, signs = factor_less_signs(q, b)
    inverse = torch.linalg.solve_triangular(r2, eye.expand_as(r2), upper=True)
    w.small[M] = torch.linalg.solve_triangular(upper, inverse, upper=True, left=False)
    w.small[TOP] = torch.where(pad, 0.0, lower)
    t = torch.linalg.solve_triangular(lower.mT, -upper * signs[:, None, :], upper=True, left=False, unitriangular=True)
    w.small[T] = torch.where(pad, 0.0, t.triu())
    if rows == b:
        r = signs[:, :, None] * (r2 @ w.small[R1])
        _write_r(w, index, torch.where(fine, r, 0.0))
    _reflect_columns(w, index)


def _reflect_columns(w: Workspace, index: int) -> None:
    """Replace the factors of broken panels by those of plain Householder reflections."""
    begin, b = (index + 1) * w.half_width, w.half_width
    for m in range(w.count):
        if not int(w.broken[m]):
            continue
        v, t, r = reflect_one(w.panel[m, begin:, :b])
        k = v.shape[1]
        q = w.basis[w.place(index), m, begin:]
        q.zero_()
        q[:, :k] = v
        w.small[:, m] = 0.0
        w.small[M, m] = torch.eye(w.width, dtype=torch.float64, device=q.device)
        w.small[T, m, :k, :k] = t
        rows = min(b, len(v))
        w.small[TOP, m, :rows, :k] = v[:rows]
        full = q.new_zeros(1, w.width, w.width)
        full[0, :rows, :b] = r[:rows]
        _write_r(w, index, full, m)


def form_basis(w: Workspace, index: int) -> None:
    """V = [V_top; Q1_rest M], its float16 halves, and its products with panels that wait and with carried vectors."""
    begin, b, place, older = (index + 1) * w.half_width, w.half_width, w.place(index), w.older(index)
    q = w.basis[place, :, begin:]
    v = q @ w.small[M]
    rows = min(b, v.shape[1])
    v[:, :rows] = w.small[TOP, :, :rows]
    q[:] = v
    if w.split:
        w.basis_halves[place, :, :, begin:] = _halves(v * V_SCALE)
    for k in range(older):
        torch.matmul(w.basis[k, :, begin:].mT, v, out=w.cross[2 * k])
        torch.matmul(w.z[k, :, begin:].mT, v, out=w.cross[2 * k + 1])
    if w.carried is not None:
        w.cross[2 * older, :, : w.carried.shape[1]] = w.carried[:, :, begin:] @ v


def sweep(w: Workspace, index: int) -> None:
    """X = A V of this panel on the trailing matrix, to which the last panel's update is applied if it is on its own."""
    begin, place, dtype = (index + 1) * w.half_width, w.place(index), w.matrix.dtype
    if w.group == 1:
        _apply(w, begin, w.pending(index))
    trailing, x = w.matrix[:, begin:, begin:], w.product[0, :, begin:]
    if not w.split:
        torch.bmm(trailing, w.basis[place, :, begin:].to(dtype), out=x)
        return
    up, down = w.scale[:, :, None, None]
    x[:] = _three_products(_halves(trailing * up).float(), w.basis_halves[place, :, :, begin:].float()) * down
    w.product[1 : w.sweep_splits(w.order - begin), :, begin:] = 0.0


def form_y(w: Workspace, index: int) -> None:
    """Y = X T, X corrected by the panels that wait, and Vᵀ Y."""
    begin, place = (index + 1) * w.half_width, w.place(index)
    x = w.product[: w.sweep_splits(w.order - begin), :, begin:].to(torch.float64).sum(0)
    for k in range(w.older(index)):
        x = x - w.basis[k, :, begin:] @ w.cross[2 * k + 1] - w.z[k, :, begin:] @ w.cross[2 * k]
    torch.matmul(x, w.small[T], out=w.z[place, :, begin:])
    torch.matmul(w.basis[place, :, begin:].mT, w.z[place, :, begin:], out=w.inner)


def form_z(w: Workspace, index: int) -> None:
    """Z = Y - 1/2 V Tᵀ (Vᵀ Y), its float16 halves, and carried vectors x <- x - V Tᵀ (Vᵀ x)."""
    begin, place = (index + 1) * w.half_width, w.place(index)
    v, z = w.basis[place, :, begin:], w.z[place, :, begin:]
    z -= 0.5 * v @ (w.small[T].mT @ w.inner)
    if w.split:
        w.z_halves[place, :, :, begin:] = _halves(z * w.scale[0, :, None, None])
    if w.carried is not None:
        products = w.cross[2 * w.older(index), :, : w.carried.shape[1]]
        w.carried[:, :, begin:].baddbmm_(products @ w.small[T], v.mT, alpha=-1.0)


def update(w: Workspace, index: int) -> None:
    """A <- A - V Zᵀ - Z Vᵀ of all panels of the group that this one ends, on what is left of the matrix."""
    _apply(w, (index + 1) * w.half_width, slice(0, w.group))


def _apply(w: Workspace, begin: int, places: slice) -> None:
    """Updates of the panels at these places, on the matrix from ``begin`` on."""
    trailing = w.matrix[:, begin:, begin:]
    if not w.split:
        for v, z in zip(w.basis[places, :, begin:], w.z[places, :, begin:], strict=True):
            left = torch.cat([v, z], 2).to(w.matrix.dtype)
            trailing.baddbmm_(left, torch.cat([z, v], 2).to(w.matrix.dtype).mT, alpha=-1.0)
        return
    for v, z in zip(w.basis_halves[places, :, :, begin:], w.z_halves[places, :, :, begin:], strict=True):
        left, right = v.float(), z.float()
        both = _three_products(left, right.mT) + _three_products(right, left.mT)
        trailing -= both * w.scale[1, :, None, None]


def reflect_one(panel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Householder reflections column by column, for any shape (m, b) and rank.

    Returns:
        V (m, k) unit lower trapezoidal, T (k, k) upper triangular, and [R; 0] (m, b), R upper trapezoidal.
    """
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


def _cholesky(inner: Tensor) -> tuple[Tensor, Tensor]:
    """R of ``Rᵀ R`` (m, B, B) and whether every pivot was sound, (m,); the identity where one was not."""
    lower, info = torch.linalg.cholesky_ex(inner)
    fine = (info == 0) & (lower.diagonal(0, 1, 2).square() > DEPENDENT).all(1)
    eye = torch.eye(inner.shape[1], dtype=inner.dtype, device=inner.device)
    return torch.where(fine[:, None, None], lower.mT, eye), fine


def _write_r(w: Workspace, index: int, r: Tensor, only: int | None = None) -> None:
    """R (., B, B), upper triangular, into band rows ``column + j``: entry (i, j) at distance b + i - j."""
    b, column = w.half_width, index * w.half_width
    band = w.band if only is None else w.band[only : only + 1]
    for j in range(b):
        rows = min(j + 1, w.order - column - b)
        band[:, column + j, b - j : b - j + rows] = r[:, :rows, j].to(band.dtype)


def _halves(x: Tensor) -> Tensor:
    """(2, ...) float16 with x = sum to 22 bits."""
    high = x.to(torch.float32).to(torch.float16)
    return torch.stack([high, (x - high.to(x.dtype)).to(torch.float32).to(torch.float16)])


def _three_products(left: Tensor, right: Tensor) -> Tensor:
    """Products hi hi + hi lo + lo hi of halves (2, m, ., .)."""
    return left[0] @ right[0] + left[0] @ right[1] + left[1] @ right[0]
