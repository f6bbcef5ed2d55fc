"""The operations on one matrix, a batch of one, by a backend that is named."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrum_fast.measure.ops import band, extent, sturm
from spectrum_fast.measure.ops import gram as gram_operation
from spectrum_fast.measure.ops.dispatch import use_backend


def measure(weight: Tensor, *, backend: str = "auto") -> tuple[float, float]:
    with use_backend(backend):
        largest, total = extent.measure(weight[None])[0].tolist()
    return largest, total


def gram(weight: Tensor, *, out_dtype: torch.dtype = torch.float32, backend: str = "auto") -> Tensor:
    with use_backend(backend):
        return gram_operation.gram(weight[None], out_dtype=out_dtype)[0]


def add_gram(block: Tensor, out: Tensor, *, backend: str = "auto") -> None:
    with use_backend(backend):
        gram_operation.add_gram(block[None], out[None])


def reduce_to_band(matrix: Tensor, half_width: int, *, backend: str = "auto") -> Tensor:
    with use_backend(backend):
        return band.reduce_to_band(matrix[None], half_width)[0]


def count_below(matrix: Tensor, shifts: Tensor, *, backend: str = "auto") -> Tensor:
    with use_backend(backend):
        return sturm.count_below(matrix[None], shifts[None])[0]


def log_abs_det(matrix: Tensor, shifts: Tensor, *, backend: str = "auto") -> Tensor:
    with use_backend(backend):
        return sturm.log_abs_det(matrix[None], shifts[None])[0]
