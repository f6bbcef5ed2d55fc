"""Codes times scales: FP8 and int8 with one scale per tensor, row, group of columns or block."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.dispatch import use_native


def decode_scaled(
    codes: Tensor,
    scale: Tensor,
    block: tuple[int, ...],
    zero_point: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """``W[i, j] = (codes[i, j] - zero_point[i // a, j // b]) * scale[i // a, j // b]`` with ``(a, b) = block``.

    Args:
        codes: [rows, columns] in float8 e4m3, float8 e5m2 or int8.
        scale: ``ceil(rows / a) * ceil(columns / b)`` numbers, row-major, in a float type, in e8m0, or in uint8 (the
            exponent of a power of two, bias 127: the same bits).
        block: rows and columns that share a scale; the last blocks may be cut short.
        zero_point: int8, as many as scales.
        backend: one of :data:`spectrum_fast.measure.ops.dispatch.BACKENDS`; ``native`` and ``reference`` are equal to
        the bit.

    Returns:
        [rows, columns] float32. A product is exact if the scale has at most 20 significant bits, and else rounded once
        (relative error 2^-24).

    Raises:
        UnsupportedDtypeError: the number of scales or zero points does not fit.

    Source: DeepSeek-V3 ``inference/kernel.py`` (``weight_dequant``); compressed-tensors ``float-quantized`` and
    ``int-quantized``.
    """
    rows, columns = codes.shape
    grid = (math.ceil(rows / block[0]), math.ceil(columns / block[1]))
    scale = _grid(scale_values(scale), grid, "scales")
    if zero_point is not None:
        zero_point = _grid(zero_point.to(torch.float32), grid, "zero points")
    if use_native(codes, backend):
        from spectrum_fast.measure.ops.decode import native

        return native.scaled(codes, scale, block, zero_point)
    weight = codes.to(torch.float32)
    # All whole rows of blocks at once (on a GPU every step is a launch), then the one that is cut short.
    whole = rows // block[0]
    for first, count, height in ((0, whole, block[0]), (whole, 1, rows - whole * block[0])):
        if count and height:
            begin = first * block[0]
            stretch = weight[begin : begin + count * height].unflatten(0, (count, height))
            if zero_point is not None:
                _per_block(stretch, zero_point[first : first + count], block[1], Tensor.sub_)
            _per_block(stretch, scale[first : first + count], block[1], Tensor.mul_)
    return weight


def scale_values(scale: Tensor) -> Tensor:
    """Scales as float32; a byte is the exponent of a power of two (e8m0), 255 is NaN."""
    if scale.dtype == torch.uint8:
        scale = scale.view(torch.float8_e8m0fnu)
    return scale.to(torch.float32)


def _grid(values: Tensor, grid: tuple[int, int], what: str) -> Tensor:
    if values.numel() != grid[0] * grid[1]:
        raise UnsupportedDtypeError(
            f"expected {grid[0]} x {grid[1]} {what}, found {values.numel()} of shape {tuple(values.shape)}"
        )
    return values.reshape(grid)


def _per_block(rows: Tensor, values: Tensor, width: int, apply_inplace: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Apply one value to each block: rows [n, height, columns] in runs of ``width`` columns, values [n, runs]."""
    full = rows.shape[2] // width
    if full:
        apply_inplace(rows[:, :, : full * width].unflatten(2, (full, width)), values[:, None, :full, None])
    if full < values.shape[1]:
        apply_inplace(rows[:, :, full * width :], values[:, None, full:])
