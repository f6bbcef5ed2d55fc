"""The operations on a batch: in one launch on a GPU, matrix by matrix on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import reduce_to_band
from spectrum_fast.measure.ops.decode.coded import CodedWeight
from spectrum_fast.measure.ops.dispatch import backend_module, choose_backend
from spectrum_fast.measure.ops.extent.reference import measure_there
from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.ops.sturm import count_below, log_det
from spectrum_fast.measure.spectra.band_method import half_width

TORCH = "torch"
"""Backend of this package alone: the GPU's own order of steps in torch operations, on any device. It proves the
orchestration where there is no GPU."""


def to_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers of the host on the device; a plain ``torch.tensor`` there waits for all that is under way."""
    on_host = torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def batched_extent(matrices: Sequence[Tensor], backend: str) -> Tensor:
    """Largest entry and sum of squares of each matrix, (m, 2) float64, on their device."""
    if matrices and backend != TORCH and _on_device("extent", matrices[0], backend):
        measure = backend_module("extent", matrices[0].device.type, backend).measure_there
    else:
        measure = measure_there
    return torch.stack([measure(matrix) for matrix in matrices])


def batched_gram(weights: Tensor, backend: str) -> Tensor:
    """Float32 Gram matrices (m, k, k) of weights (m, rows, columns), k the short side."""
    if backend == TORCH:
        wide = weights.to(torch.float32)
        return wide @ wide.mT if wide.shape[1] <= wide.shape[2] else wide.mT @ wide
    if _on_device("gram", weights, backend):
        return backend_module("gram", weights.device.type, backend).gram(weights)
    return torch.stack([gram(weight, backend=backend) for weight in weights])


def takes_codes(weight: CodedWeight, backend: str) -> bool:
    """Whether kernels form extent and Gram product of such a weight from its codes."""
    return weight.is_fp8 and backend != TORCH and _on_device("gram", weight.codes, backend)


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


def band_half_width(matrices: Tensor, backend: str, rotated_rank: int = 0) -> int:
    """Half-width of the bands that matrices (m, k, k) with ``rotated_rank`` rows of outliers are reduced to."""
    size = matrices.shape[1]
    on_device = backend == TORCH or _on_device("band", matrices, backend)
    return half_width(size, rotated_rank, on_gpu=on_device)


def batched_band(matrices: Tensor, half_width: int, backend: str) -> Tensor:
    """Bands (m, k, b + 1), float64, of symmetric matrices (m, k, k), which are destroyed."""
    if backend == TORCH or _on_device("band", matrices, backend):
        from spectrum_fast.measure.ops.band import triton as device_band

        return device_band.reduce_to_band(matrices, half_width).to(torch.float64)
    bands = [reduce_to_band(matrix, half_width, backend=backend) for matrix in matrices]
    return torch.stack(bands).to(torch.float64)


class Slices:
    """Counts and log-determinants of a batch of bands, in terms of singular values.

    Args:
        bands: (m, n, b + 1) float64; eigenvalues are squared singular values.
        backend: see :func:`spectrum_fast.measure.ops.dispatch.choose_backend`, or :data:`TORCH`.
    """

    def __init__(self, bands: Tensor, backend: str) -> None:
        self._bands = bands
        self._backend = "auto" if backend == TORCH else backend
        self.size = bands.shape[1]
        self._device_form = _on_device("sturm", bands, self._backend)
        if self._device_form:
            from spectrum_fast.measure.ops.sturm import triton as device_sturm

            self._prepared = device_sturm.prepare_band(bands)
            self._device_sturm = device_sturm

    def below(self, points: Tensor) -> Tensor:
        """How many singular values lie below each point: (m, s) float64 at least 0 -> (m, s) int64."""
        shifts = points * points
        if self._device_form:
            return self._device_sturm.count_below(self._prepared, shifts)
        return self._one_by_one(count_below, shifts)

    def log_det(self, shifts: Tensor, wanted: Tensor) -> Tensor:
        """``sum_i log(s_i^2 - z)``: (m, s) complex128 with Im z >= 0 -> (m, s) complex128; 0 where not wanted."""
        if self._device_form:
            return self._device_sturm.log_det(self._prepared, shifts, wanted)
        return torch.where(wanted, self._one_by_one(log_det, shifts), 0.0)

    def _one_by_one(self, operation: Callable[..., Tensor], shifts: Tensor) -> Tensor:
        pairs = zip(self._bands, shifts, strict=True)
        return torch.stack([operation(band, row.contiguous(), backend=self._backend) for band, row in pairs])


def _on_device(operation: str, tensor: Tensor, backend: str) -> bool:
    """Whether the batched Triton form serves this operation."""
    return choose_backend(operation, tensor.device.type, backend) == "triton"
