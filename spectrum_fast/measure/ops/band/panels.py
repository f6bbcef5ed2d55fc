"""The order of steps of the band reduction, the same in torch operations and on the GPU, and what surrounds them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band.workspace import Workspace

STEPS = ("gather_panel", "factor_gram", "orthonormalise", "reconstruct", "form_basis", "sweep", "form_y", "form_z")
"""What one panel takes, in this order: functions of a workspace and the number of the panel."""
UPDATE = "update"
"""And what the last one of a group takes."""


def reduce_panels(workspace: Workspace, steps: object, vectors: bool = False) -> Tensor:
    """Run all panels of a batch in its workspace and return its bands.

    Args:
        workspace: holds the batch.
        steps: has a function for each of STEPS, and for UPDATE.
        vectors: whether V is left in the rows of its columns, of which nothing is read any more.
    """
    w, n, b = workspace, workspace.order, workspace.half_width
    index = 0
    while n - index * b > b + 1:
        for name in STEPS if not w.ends_group(index) else (*STEPS, UPDATE):
            getattr(steps, name)(w, index)
        if vectors:
            column, begin = index * b, (index + 1) * b
            w.matrix[:, column:begin, begin:].copy_(w.basis[w.place(index), :, begin:, :b].mT)
        index += 1
    column = index * b
    block = w.matrix[:, column:, column:].to(torch.float64)
    for place in range(*w.pending(index).indices(len(w.basis))):
        v, z = w.basis[place, :, column:], w.z[place, :, column:]
        block = block - v @ z.mT - z @ v.mT
    _write_block(w.band, block.to(w.matrix.dtype), column)
    return w.band


def reduce_batch(matrices: Tensor, half_width: int, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Bands (m, n, b + 1) of matrices (m, n, n), which are destroyed; ``run`` takes those that have a panel."""
    count, n, _ = matrices.shape
    if n <= half_width + 1 or count == 0:
        bands = matrices.new_zeros(count, n, half_width + 1)
        if count:
            _write_block(bands, matrices, 0)
        return bands
    scale = _scale_down(matrices) if matrices.dtype == torch.float64 else None
    bands = run(matrices)
    if scale is not None:
        bands /= scale
    return bands


def triangular_factor(v: Tensor) -> Tensor:
    """T (m, b, b) float64 of ``H = I - V T Vᵀ`` for Householder vectors V (m, r, b); one that is zero reflects nothing.

    H is orthogonal where ``T⁻¹ + T⁻ᵀ = Vᵀ V``, T upper triangular.
    """
    exact = v.to(torch.float64)
    products = exact.mT @ exact
    half = 0.5 * products.diagonal(dim1=1, dim2=2)
    inverse = products.triu(1) + torch.diag_embed(torch.where(half > 0, half, 1.0))
    identity = torch.eye(v.shape[-1], dtype=torch.float64, device=v.device).expand_as(inverse)
    return torch.linalg.solve_triangular(inverse, identity, upper=True)


def factor_less_signs(q: Tensor, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """L (unit) and U of ``Q - S``, and S = diag(+-1), each sign opposite to its pivot; (m, B, B) and (m, B).

    Of the first b rows and columns; no pivot is smaller than 1 where Q is the top of an orthonormal matrix.
    """
    work, signs = q.clone(), torch.ones_like(q[:, 0])
    for k in range(b):
        signs[:, k] = torch.where(work[:, k, k] >= 0, -1.0, 1.0)
        work[:, k, k] -= signs[:, k]
        work[:, k + 1 :, k] /= work[:, k, k, None]
        work[:, k + 1 :, k + 1 :] -= work[:, k + 1 :, k, None] * work[:, k, None, k + 1 :]
    return work.tril(-1) + torch.eye(q.shape[1], dtype=q.dtype, device=q.device), work.triu(), signs


def _scale_down(matrices: Tensor) -> Tensor:
    """Multiply each matrix in place by a power of two so that its largest entry is in [1/2, 1); return the factors.

    The panels square their entries; float32 panels do so in float64 and need no scaling.
    """
    largest = matrices.abs().amax(dim=(1, 2), keepdim=True)
    exponent = torch.frexp(torch.where(largest > 0, largest, 1)).exponent.to(torch.int64)
    # Powers of two made of bits; 2^-1023 and beyond would be subnormal, and matrices that large are not scaled fully.
    scale = ((1023 - exponent.clamp(-1021, 1021)) << 52).view(torch.float64)
    matrices *= scale
    return scale


def _write_block(band: Tensor, block: Tensor, column: int) -> None:
    """Lower half of the last diagonal block (m, k, k), k <= b + 1, into the band from ``column`` on."""
    size, width = block.shape[1], band.shape[2]
    j = torch.arange(size, device=block.device)[:, None]
    d = torch.arange(width, device=block.device)[None, :]
    inside = j + d < size
    flat = torch.where(inside, (j + d) * size + j, 0).reshape(-1)
    values = block.reshape(block.shape[0], -1).index_select(1, flat).reshape(-1, size, width)
    band[:, column:] = values.masked_fill(~inside, 0)
