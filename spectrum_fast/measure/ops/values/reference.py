"""The eigenvalues of band matrices by the dense solver of LAPACK."""

from __future__ import annotations

import torch
from torch import Tensor


def band_values(bands: Tensor, tolerances: Tensor) -> Tensor:  # noqa: ARG001 - one signature
    """See :func:`spectrum_fast.measure.ops.values.band_values`; as accurate as LAPACK, whatever the tolerance."""
    count, n, width = bands.shape
    dense = torch.zeros(count, n, n, dtype=torch.float64)
    for offset in range(min(width, n)):
        dense.diagonal(-offset, 1, 2).copy_(bands[:, : n - offset, offset])
    return torch.linalg.eigvalsh(dense, UPLO="L")
