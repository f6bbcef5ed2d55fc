"""Quantised weights for tests: trained-like matrices in the codes of FP8 and MXFP4."""

from __future__ import annotations

import torch

from spectrum_fast.measure.ops.decode.coded import from_parts
from spectrum_fast.read.formats.codes import Codes

from support import matrices


def batch(kind: str, count: int, rows: int, columns: int) -> list[Codes]:
    """``count`` weights; the first has a value far above the others."""
    return [
        one(kind, matrices.trained_like(rows, columns, outliers=() if seed else (60.0,), seed=seed))
        for seed in range(count)
    ]


def one(kind: str, matrix: torch.Tensor) -> Codes:
    """A matrix in codes: ``fp8`` with a scale a block of 128 x 128, or ``mxfp4``, columns a multiple of 32."""
    matrix = matrix.float()
    return fp8(matrix) if kind == "fp8" else mxfp4(matrix)


def fp8(matrix: torch.Tensor) -> Codes:
    """The largest entry of a block becomes 448."""
    rows, columns = matrix.shape
    scales = torch.empty(-(-rows // 128), -(-columns // 128))
    codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = matrix[128 * i : 128 * i + 128, 128 * j : 128 * j + 128]
            scales[i, j] = block.abs().max() / 448
            codes[128 * i : 128 * i + 128, 128 * j : 128 * j + 128] = (block / scales[i, j]).to(codes.dtype)
    return from_parts(codes, scales)


def mxfp4(matrix: torch.Tensor) -> Codes:
    """The largest entry of 32 becomes 4 to 6; the others the nearest code below."""
    rows, columns = matrix.shape
    groups = matrix.view(rows, columns // 32, 32)
    exponents = torch.frexp(groups.abs().amax(2))[1] - 3
    scaled = groups / torch.ldexp(torch.ones(exponents.shape), exponents)[..., None]
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    nibbles = torch.searchsorted(magnitudes, scaled.abs().contiguous(), right=True) - 1
    nibbles = (nibbles + 8 * (scaled < 0)).to(torch.uint8).view(rows, columns // 32, 16, 2)
    return from_parts(nibbles[..., 0] | (nibbles[..., 1] << 4), (exponents + 127).to(torch.uint8))
