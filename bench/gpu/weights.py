"""Weights for benchmarks that every criterion finds signal and noise in, whatever their shape."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.gpu.record import Record
from bench.gpu.timing import DEVICE
from bench.peers import exact_singular_values, score_functional

_GRADING = 0.5
"""Spread of the scales along the short side (standard deviation of their logarithm). The singular values of a wide
matrix of plain noise lie so close together that the published threshold is below all of them: no noise, no score."""
_DIRECTIONS = 48


def trained_like(count: int, m: int, n: int, *, on_host: bool = False) -> Tensor:
    """Graded noise and some directions above it, (count, m, n) bfloat16, made one by one: no wide copy of a batch.

    The first of a shape is the same in every process, so that its truth is computed once (:func:`true_score`).

    Args:
        count: matrices.
        m: rows.
        n: columns.
        on_host: in memory of the host.
    """
    weights = torch.empty(count, m, n, dtype=torch.bfloat16, device="cpu" if on_host else DEVICE)
    some = min(m, n, _DIRECTIONS)
    torch.manual_seed(m * 100_003 + n)
    for index in range(count):
        noise = torch.randn(m, n, device=DEVICE) * 0.02
        noise *= torch.exp(_GRADING * torch.randn((m, 1) if m <= n else (1, n), device=DEVICE))
        noise += torch.randn(m, some, device=DEVICE) @ torch.randn(some, n, device=DEVICE) * 0.002
        weights[index] = noise
    return weights


def true_score(weight: Tensor, record: Record, kind: str = "bfloat16") -> float:
    """The score of the first weight of a shape by float64 singular values; computed once a result file."""
    m, n = weight.shape

    def compute() -> float:
        return score_functional(exact_singular_values(weight, "gram").cpu(), (m, n))["snr"]

    return record.known(f"score of {kind} {m}x{n}", compute)


def to_fp8(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (count, m, n) float8_e4m3fn and scales (count, m / 128, n / 128) float32; largest of a block: 448."""
    count, m, n = weights.shape
    grid = (-(-m // 128), -(-n // 128))
    codes = torch.empty(weights.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty(count, *grid)
    for index in range(count):
        padded = torch.zeros(128 * grid[0], 128 * grid[1], device=DEVICE)
        padded[:m, :n] = weights[index].to(DEVICE)
        blocks = padded.view(grid[0], 128, grid[1], 128)
        scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / 448
        coded = (blocks / scale[:, None, :, None]).view(padded.shape)[:m, :n]
        codes[index], scales[index] = coded.to(codes.dtype), scale
    return codes, scales
