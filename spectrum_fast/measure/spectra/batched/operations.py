"""The operations on a batch in terms of singular values, and on weights in codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode.coded import CodedWeight
from spectrum_fast.measure.ops.dispatch import choose_backend, follows_device_schedule
from spectrum_fast.measure.ops.sturm import count_below, log_det, prepare
from spectrum_fast.measure.spectra.band_method import half_width


def to_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers of the host on the device; a plain ``torch.tensor`` there waits for all that is under way."""
    on_host = torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def takes_codes(weight: CodedWeight) -> bool:
    """Whether kernels form extent and Gram product of such a weight from its codes."""
    return weight.is_fp8 and choose_backend("gram", weight.codes.device.type) == "triton"


def coded_extent(weights: Sequence[CodedWeight]) -> Tensor:
    """Largest entry and sum of squares of each FP8 weight, (m, 2) float64, on their device."""
    from spectrum_fast.measure.ops.extent.triton_codes import measure_block_scaled

    return measure_block_scaled(*_stacked_codes(weights))


def coded_gram(weights: Sequence[CodedWeight]) -> Tensor:
    """Float32 Gram matrices (m, k, k) of FP8 weights, from their codes."""
    from spectrum_fast.measure.ops.gram.triton_codes import gram_block_scaled

    return gram_block_scaled(*_stacked_codes(weights))


def _stacked_codes(weights: Sequence[CodedWeight]) -> tuple[Tensor, Tensor]:
    """Bytes (m, rows, columns) and scales."""
    codes = torch.stack([weight.codes.view(torch.uint8) for weight in weights])
    return codes, torch.stack([weight.scales for weight in weights])


def band_half_width(matrices: Tensor, rotated_rank: int = 0) -> int:
    """Half-width of the bands that matrices (m, k, k) with ``rotated_rank`` rows of outliers are reduced to."""
    on_gpu = follows_device_schedule(matrices.device.type)
    return half_width(matrices.shape[1], rotated_rank, on_gpu=on_gpu)


class Slices:
    """Counts and log-determinants of a batch of bands, in terms of singular values.

    Args:
        bands: (m, n, b + 1) float64; eigenvalues are squared singular values.
    """

    def __init__(self, bands: Tensor) -> None:
        self._bands = prepare(bands)
        self.size = bands.shape[1]

    def below(self, points: Tensor) -> Tensor:
        """How many singular values lie below each point: (m, s) float64 at least 0 -> (m, s) int64."""
        return count_below(self._bands, points * points)

    def log_det(self, shifts: Tensor, wanted: Tensor) -> Tensor:
        """``sum_i log(s_i^2 - z)``: (m, s) complex128 with Im z >= 0 -> (m, s) complex128; 0 where not wanted."""
        return log_det(self._bands, shifts, wanted)
