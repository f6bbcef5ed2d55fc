"""The steps of the GPU band reduction in torch operations: the model that the kernels of ``device_kernels`` follow.

Same names, same workspace, same meaning; runs on any device, batched by broadcasting. It asks the tensors for values
only in :func:`reflect_columns`, where the kernels decide on the device. Its place is on CPU tensors, in tests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band.device_workspace import V_SCALE, Workspace
from spectrum_fast.measure.ops.band.reference import reflect_columns as reflect_one

DEPENDENT = 1e-14
"""A pivot of the Gram matrix of equally long columns that small is rounding error."""
NEARLY_ORTHONORMAL = 1e-4
"""Largest entry of ``Q1ᵀ Q1 - I`` served: condition of the scaled panel about 5e5. At 3e-3 the refined product with an
explicit inverse left 95 eps ||A||_F in a float64 matrix, below 2e-4 it left 3
(tests/measure/ops/test_triton_band.py)."""
SERIES = 1e-8
"""Largest entry of ``E = Q1ᵀ Q1 - I`` for which ``I + low(E)`` is its Cholesky factor to working accuracy."""
R1, W, M, TOP, T = range(5)
"""Places in ``Workspace.small``."""


def gather_panel(w: Workspace, index: int) -> None:
    """P, the diagonal block of the band, and Pᵀ P."""
    b, column, begin = w.half_width, index * w.half_width, (index + 1) * w.half_width
    block = w.matrix[:, column:, column:begin].to(torch.float64)
    if index:
        v, z = w.basis[(index - 1) % 2, :, column:, :b], w.z[:, column:, :b]
        block = block - v @ z[:, :b].mT - z @ v[:, :b].mT
    for d in range(b):
        w.band[:, column : begin - d, d] = block[:, :b].diagonal(-d, 1, 2).to(w.band.dtype)
    panel = w.panel[:, begin:]
    panel.zero_()
    panel[:, :, :b] = block[:, b:]
    torch.matmul(panel.mT, panel, out=w.inner)


def factor_gram(w: Workspace, index: int) -> None:
    """R1 and W = R1^-1 from Pᵀ P = R1ᵀ R1, columns scaled to equal length; broken panels marked."""
    b, tall = w.half_width, w.order - (index + 1) * w.half_width >= w.half_width
    norms = w.inner.diagonal(0, 1, 2).sqrt()
    pad = torch.arange(w.width, device=norms.device) >= b
    sound = (norms > 0) & (norms < torch.inf)
    lengths = torch.where(sound, norms, 1.0)
    scaled = w.inner / lengths[:, :, None] / lengths[:, None, :]
    scaled.diagonal(0, 1, 2)[:] = 1.0
    g, pivots, fine = _eliminate(scaled, b)
    w.broken[:] = (~(fine & (sound | pad).all(1)) | (not tall)).to(torch.int32)
    root = pivots.sqrt()
    w.small[R1] = g.triu() / root[:, :, None] * lengths[:, None, :]
    w.small[W] = (g.tril(-1) + torch.eye(w.width, dtype=g.dtype)).mT / root[:, None, :] / lengths[:, :, None]


def orthonormalise(w: Workspace, index: int) -> None:
    """Q1 = P W, refined once: ``Q1 + (P - Q1 R1) W`` has the small residual of a triangular solve; and Q1ᵀ Q1."""
    begin = (index + 1) * w.half_width
    q, panel = w.basis[index % 2, :, begin:], w.panel[:, begin:]
    torch.matmul(panel, w.small[W], out=q)
    q += (panel - q @ w.small[R1]) @ w.small[W]
    torch.matmul(q.mT, q, out=w.inner)


def reconstruct(w: Workspace, index: int) -> None:
    """V_top, M, T and the band's R from Q1 and Q1ᵀ Q1; broken panels marked."""
    b, n, begin = w.half_width, w.order, (index + 1) * w.half_width
    eye = torch.eye(w.width, dtype=torch.float64)
    pad = (torch.arange(w.width) >= b)[:, None] & (torch.arange(w.width) >= b)[None, :]
    inner = torch.where(pad, eye, w.inner)
    error = inner - eye
    size = error.abs().amax((1, 2))
    w.broken.bitwise_or_((~(size <= NEARLY_ORTHONORMAL)).to(torch.int32))
    series = error.triu(1) + 0.5 * torch.diag_embed(error.diagonal(0, 1, 2))
    g, pivots, _ = _eliminate(inner, b)
    root = pivots.sqrt()
    exact_r = g.triu() / root[:, :, None]
    exact_inverse = (g.tril(-1) + eye).mT / root[:, None, :]
    small = (size < SERIES)[:, None, None]
    r2 = torch.where(small, eye + series, exact_r)
    inverse = torch.where(small, eye - series, exact_inverse)
    top = torch.zeros_like(inner)
    rows = min(b, n - begin)
    top[:, :rows] = w.basis[index % 2, :, begin : begin + rows]
    q = torch.where(pad, eye, top @ inverse)
    lower, upper, signs, n_inverse = _eliminate_shifted(q, b)
    w.small[M] = inverse @ (n_inverse @ lower)
    w.small[TOP] = torch.where(pad, 0.0, lower)
    t = -(upper * signs[:, None, :]) @ (upper @ n_inverse).mT
    w.small[T] = torch.where(pad, 0.0, t.triu())
    r = signs[:, :, None] * (r2 @ w.small[R1])
    fine = w.broken == 0
    if rows == b:
        _write_r(w, index, torch.where(fine[:, None, None], r, 0.0))


def reflect_columns(w: Workspace, index: int) -> None:
    """Replace the factors of broken panels by those of plain Householder reflections."""
    begin, b = (index + 1) * w.half_width, w.half_width
    for m in range(w.count):
        if not int(w.broken[m]):
            continue
        v, t, r = reflect_one(w.panel[m, begin:, :b])
        k = v.shape[1]
        q = w.basis[index % 2, m, begin:]
        q.zero_()
        q[:, :k] = v
        w.small[:, m] = 0.0
        w.small[M, m] = torch.eye(w.width, dtype=torch.float64)
        w.small[T, m, :k, :k] = t
        rows = min(b, len(v))
        w.small[TOP, m, :rows, :k] = v[:rows]
        full = torch.zeros(1, w.width, w.width, dtype=torch.float64)
        full[0, :rows, :b] = r[:rows]
        _write_r(w, index, full, m)


def form_basis(w: Workspace, index: int) -> None:
    """V = [V_top; Q1_rest M], and its float16 halves."""
    begin, b = (index + 1) * w.half_width, w.half_width
    q = w.basis[index % 2, :, begin:]
    v = q @ w.small[M]
    rows = min(b, v.shape[1])
    v[:, :rows] = w.small[TOP, :, :rows]
    q[:] = v
    if w.split:
        w.basis_halves[index % 2, :, :, begin:] = _halves(v * V_SCALE)


def sweep(w: Workspace, index: int) -> None:
    """A <- A - V Zᵀ - Z Vᵀ of the last panel, X = A V of this one, on the trailing matrix."""
    begin, turn = (index + 1) * w.half_width, index % 2
    trailing = w.matrix[:, begin:, begin:]
    x = w.product[0, :, begin:]
    if not w.split:
        v, z = w.basis[1 - turn, :, begin:], w.z[:, begin:]
        if index:
            trailing.baddbmm_(torch.cat([v, z], 2), torch.cat([z, v], 2).mT, alpha=-1.0)
        torch.bmm(trailing, w.basis[turn, :, begin:], out=x)
        return
    up, down = w.scale[:, :, None, None]
    if index:
        v, z = w.basis_halves[1 - turn, :, :, begin:].float(), w.z_halves[:, :, begin:].float()
        trailing -= (_three_products(v, z.mT) + _three_products(z, v.mT)) * down
    x[:] = _three_products(_halves(trailing * up).float(), w.basis_halves[turn, :, :, begin:].float()) * down
    splits = w.sweep_splits(w.order - begin)
    w.product[1:splits, :, begin:] = 0.0


def form_y(w: Workspace, index: int) -> None:
    """Y = X T and Vᵀ Y."""
    begin = (index + 1) * w.half_width
    x = w.product[: w.sweep_splits(w.order - begin) if w.split else 1, :, begin:].to(torch.float64).sum(0)
    torch.matmul(x, w.small[T], out=w.z[:, begin:])
    torch.matmul(w.basis[index % 2, :, begin:].mT, w.z[:, begin:], out=w.inner)


def form_z(w: Workspace, index: int) -> None:
    """Z = Y - 1/2 V Tᵀ (Vᵀ Y), and its float16 halves."""
    begin = (index + 1) * w.half_width
    z = w.z[:, begin:]
    z -= 0.5 * w.basis[index % 2, :, begin:] @ (w.small[T].mT @ w.inner)
    if w.split:
        w.z_halves[:, :, begin:] = _halves(z * w.scale[0, :, None, None])


def _eliminate(c: Tensor, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unpivoted elimination of symmetric (m, B, B): D Lᵀ on and above the diagonal, L^-1 (unit) below it, in place.

    Returns also the pivots (1 where they had to be replaced) and whether every pivot was sound.
    """
    g = c.clone()
    width = g.shape[1]
    below = torch.arange(width)
    pivots = torch.ones(g.shape[:2], dtype=g.dtype)
    fine = torch.ones(g.shape[0], dtype=torch.bool)
    for k in range(b):
        row = g[:, k].clone()
        d = row[:, k]
        good = d > DEPENDENT
        fine &= good
        d = torch.where(good, d, 1.0)
        pivots[:, k] = d
        column = torch.where(below > k, g[:, :, k] / d[:, None], 0.0)
        row[:, k] = 1.0
        g[:, k + 1 :, k] = 0.0
        g -= column[:, :, None] * row[:, None, :]
    g.diagonal(0, 1, 2)[:] = pivots
    return g, pivots, fine


def _eliminate_shifted(q: Tensor, b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LU factors of Q - S with S = diag(+-1) opposite to the pivots, S, and (Q - S)^-1, by one Gauss-Jordan sweep."""
    g = q.clone()
    width = g.shape[1]
    at = torch.arange(width)
    lower = torch.eye(width, dtype=g.dtype).repeat(len(g), 1, 1)
    upper = lower.clone()
    signs = torch.ones(g.shape[:2], dtype=g.dtype)
    for k in range(b):
        signs[:, k] = torch.where(g[:, k, k] >= 0, -1.0, 1.0)
        g[:, k, k] -= signs[:, k]
        p = g[:, k, k].clone()
        upper[:, k, k:] = g[:, k, k:]
        lower[:, k + 1 :, k] = g[:, k + 1 :, k] / p[:, None]
        row = g[:, k].clone()
        row[:, k] = 1.0
        row /= p[:, None]
        column = torch.where(at == k, 0.0, g[:, :, k])
        g[:, :, k] = 0.0
        g -= column[:, :, None] * row[:, None, :]
        g[:, k] = row
    return lower, upper, signs, g


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
