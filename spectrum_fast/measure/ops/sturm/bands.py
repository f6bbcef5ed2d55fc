"""Bands to be sliced: by the torch and Triton backends scaled, cleaned and padded once, for many rounds of shifts.

What these share: the scale of a band and of a shift, and the bound below which a pivot is rounding error. (The compiled
kernels do the same as they pack a band, and are given it as it is.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.dispatch import on_host

_ROW_PADDING = 8
"""Rows are padded to a multiple of this, the largest number of steps unrolled, and one more is read ahead."""


@dataclass(frozen=True)
class ScaledBands:
    """Bands as kernels read them.

    Attributes:
        rows: (m, n_padded + 1, b + 2) float32 or float64: band row j scaled by 2^-exponent so that max |B| is in
            [1/2, 1), zero past the end, then the bound below which pivot j is rounding error.
        exponents: (m,) int64.
        zero: (m,) bool, whether a matrix is all zero.
        order: n.
    """

    rows: Tensor
    exponents: Tensor
    zero: Tensor
    order: int

    @property
    def half_width(self) -> int:
        """B, at most n - 1."""
        return self.rows.shape[2] - 2


@dataclass(frozen=True)
class Bands:
    """Symmetric band matrices of one shape, to be sliced again and again.

    Attributes:
        storage: (m, n, b + 1) as they were given, contiguous.
    """

    storage: Tensor

    @cached_property
    def scaled(self) -> ScaledBands:
        """The form that backends read which do not take them as they are."""
        return scale_bands(self.storage)


def scale_bands(bands: Tensor) -> ScaledBands:
    """Scale, clean and pad bands (m, n, b + 1) of any real floating dtype, on their device, without waiting for it.

    Raises:
        ValueError: NaN or infinity, where the bands lie on the host.
    """
    matrices, n, _ = bands.shape
    dtype = torch.float64 if bands.dtype == torch.float64 else torch.float32
    clean = bands[..., :n].to(dtype)
    width = clean.shape[-1]
    row = torch.arange(n, device=bands.device)[:, None] + torch.arange(width, device=bands.device)
    clean = clean.masked_fill(row >= n, 0)
    largest = clean.abs().amax(dim=(1, 2))
    finite = torch.isfinite(largest)  # amax propagates NaN
    if on_host(bands) and not bool(finite.all()):
        raise ValueError("bands: expected finite entries, found NaN or infinity")
    exponents = torch.frexp(torch.where(finite, largest, 1).double()).exponent.to(torch.int64)
    rows = clean.new_zeros(matrices, -(-n // _ROW_PADDING) * _ROW_PADDING + 1, width + 1)
    scaled = times_power_of_two(clean.double(), -exponents[:, None, None]).to(dtype)
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    guard = 2.0**-39 if dtype == torch.float64 else 2.0**-17  # eps^(3/4), see ops/sturm
    zero = largest == 0
    rows[:, :, width] = 1
    rows[:, :n, :width] = scaled
    floors = guard * scaled.abs().amax(dim=2).clamp(min=eps)
    rows[:, :n, width] = torch.where(zero[:, None], tiny, floors)
    return ScaledBands(rows, exponents, zero, n)


def scale_real(bands: ScaledBands, shifts: Tensor) -> Tensor:
    """Shifts (m, s) float64 on the scale of their bands, in the dtype of the rows."""
    # Gershgorin: |lambda| <= (2 b + 1) max |B|, so a shift beyond twice that counts like one there.
    limit = 4.0 * bands.half_width + 2.0
    x = times_power_of_two(shifts, (-bands.exponents)[:, None].expand(shifts.shape))
    return x.clamp(-limit, limit).to(bands.rows.dtype).contiguous()


def scale_complex(bands: ScaledBands, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shifts (m, s) complex128 and their bands on one scale, each shift its own.

    A shift far outside the spectrum sets its own scale 2^e: B and z are divided by it.

    Returns:
        Re z and Im z; the factor on the rows; all in the dtype of the rows; and ``n e log 2``, what log |det| regains.
    """
    re, im = shifts.real.contiguous(), shifts.imag.contiguous()
    size = torch.maximum(re.abs(), im)
    own = torch.frexp(size).exponent.to(torch.int64)
    of_matrix = bands.exponents[:, None].expand(shifts.shape)
    is_zero = bands.zero[:, None]
    exponents = torch.where(is_zero, own, torch.where(size == 0, of_matrix, torch.maximum(own, of_matrix)))
    factor = times_power_of_two(torch.ones_like(size), torch.where(is_zero, 0, of_matrix - exponents))
    dtype = bands.rows.dtype
    return (
        times_power_of_two(re, -exponents).to(dtype),
        times_power_of_two(im, -exponents).to(dtype),
        factor.to(dtype),
        math.log(2.0) * (bands.order * exponents.double()),
    )


def times_power_of_two(values: Tensor, exponents: Tensor) -> Tensor:
    """Exact values * 2^exponents in float64, in three steps so that no factor leaves the range; exponents int64."""
    for _ in range(3):
        part = exponents.clamp(-1022, 1023)
        values = values * ((part + 1023) << 52).view(torch.float64)
        exponents = exponents - part
    return values
