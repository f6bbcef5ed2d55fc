"""Eigenvalues of band matrices by the dense solver of LAPACK, eigenvectors by elimination of blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops.values import SOLVES


def band_values(bands: Tensor, tolerances: Tensor) -> Tensor:  # noqa: ARG001 - one signature
    """See :func:`spectrum_fast.measure.ops.values.band_values`; as accurate as LAPACK, whatever the tolerance."""
    count, n, width = bands.shape
    dense = torch.zeros(count, n, n, dtype=torch.float64)
    for offset in range(min(width, n)):
        dense.diagonal(-offset, 1, 2).copy_(bands[:, : n - offset, offset])
    return torch.linalg.eigvalsh(dense, UPLO="L")


def eigenvectors(bands: Tensor, shifts: Tensor, start: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.values.eigenvectors`."""
    found = [_iterate_inverse(*one, start) for one in zip(bands, shifts, strict=True)]
    return torch.stack(found) if found else start.new_empty(*shifts.shape, len(start))


def _iterate_inverse(band: Tensor, shifts: Tensor, start: Tensor) -> Tensor:
    """(k, n) of one band (n, b + 1), b rows eliminated at a time."""
    n, width = band.shape
    b, blocks = width - 1, -(-n // (width - 1))
    inside = torch.arange(n)[:, None] + torch.arange(width) < n
    padded = torch.cat([torch.where(inside, band, 0.0), band.new_zeros(blocks * b - n, width)]).view(blocks, b, width)
    padded.view(-1, width)[n:, 0] = -shifts.abs().max() - 1.0  # no eigenvalue near a shift, and joined to nothing
    diagonal, below = band.new_zeros(blocks, b, b), band.new_zeros(blocks, b, b)  # below: rows of the next block
    for d in range(width):
        diagonal.diagonal(-d, 1, 2)[:] = padded[:, : b - d, d]
        if d:
            below.diagonal(b - d, 1, 2)[:] = padded[:, b - d :, d]
    diagonal += diagonal.tril(-1).mT
    shifted = shifts[:, None, None] * torch.eye(b, dtype=band.dtype)
    inverses, carried = [], torch.zeros_like(shifted)
    for block, joined in zip(diagonal, below, strict=True):
        inverses.append(torch.linalg.inv_ex(block - shifted - carried)[0])
        carried = joined @ inverses[-1] @ joined.mT
    x = torch.cat([start, start.new_zeros(blocks * b - n)]).view(blocks, b, 1).repeat(len(shifts), 1, 1, 1)
    for _ in range(SOLVES):
        for i in range(1, blocks):
            x[:, i] -= below[i - 1] @ (inverses[i - 1] @ x[:, i - 1])
        x[:, -1] = inverses[-1] @ x[:, -1]
        for i in reversed(range(blocks - 1)):
            x[:, i] = inverses[i] @ (x[:, i] - below[i].mT @ x[:, i + 1])
        x /= torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
    return x.flatten(1)[:, :n]
