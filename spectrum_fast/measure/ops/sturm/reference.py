"""Slicing in readable torch: the truth that the compiled kernels are tested against.

Right-looking LDLᵀ, one column a step, all shifts at once. For step j the window ``W[s, r, c]`` holds the Schur
complement's rows and columns j .. j + b:

    d = W[0, 0],   m = W[1:, 0],   next W[:b, :b] = W[1:, 1:] - m mᵀ / d,   next row b = row j + b + 1 of B - x I.

Runs on any device; n Python steps of O(s b²) work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def count_below(band: Tensor, shifts: Tensor) -> Tensor:
    """Count eigenvalues below each shift.

    Args:
        band: (n, b + 1), any real floating dtype, finite; half precisions are computed in float32.
        shifts: (s,) float64.

    Returns:
        (s,) int64.

    Raises:
        ValueError: NaN or infinity in the band.
    """
    scaled, exponent = _scale_band(band)
    n, width = scaled.shape
    # Gershgorin: |lambda| <= (2 b + 1) max |B|, so a shift beyond twice that counts like one there.
    limit = 4.0 * (width - 1) + 2.0
    x = _times_power_of_two(shifts, torch.full_like(shifts, -exponent, dtype=torch.int64)).clamp(-limit, limit)
    floors = _pivot_floors(scaled)
    below = torch.zeros(shifts.shape, dtype=torch.int64, device=band.device)

    def guard(j: int, pivot: Tensor) -> Tensor:
        moved = torch.where(pivot > 0, floors[j], -floors[j])
        d = torch.where(pivot.abs() >= floors[j], pivot, moved)  # NaN compares false and is replaced too
        below.add_(d < 0)
        return d

    rows = _lower_rows(scaled).expand(shifts.shape[0], n, width).clone()
    rows[:, :, -1] -= x.to(scaled.dtype)[:, None]
    for j, window in _columns(rows):
        window.eliminate(guard(j, window.pivot()))
    return below


def log_det(band: Tensor, shifts: Tensor) -> Tensor:
    """Sum log(lambda_i - z), the sum of the principal logarithms of the pivots.

    Args:
        band: (n, b + 1), any real floating dtype, finite; half precisions are computed in complex64.
        shifts: (s,) complex128, Im z >= 0.

    Returns:
        (s,) complex128, imaginary part not reduced modulo 2 pi.

    Raises:
        ValueError: NaN or infinity in the band.
    """
    scaled, exponent = _scale_band(band)
    # A shift far outside the spectrum sets its own scale 2^e: B and z are divided by it, L(z) regains n e log 2.
    size = torch.maximum(shifts.real.abs(), shifts.imag)
    exponents = torch.frexp(size).exponent.to(torch.int64)
    scale = torch.ones_like(size)
    if bool(scaled.any()):
        exponents = torch.where(size == 0, exponent, exponents.clamp(min=exponent))
        scale = _times_power_of_two(scale, exponent - exponents)
    complex_dtype = torch.complex128 if scaled.dtype == torch.float64 else torch.complex64
    z = torch.complex(_times_power_of_two(shifts.real, -exponents), _times_power_of_two(shifts.imag, -exponents))
    scale = scale.to(scaled.dtype)
    # Exact pivots have |d| >= |Im d| >= Im z; a smaller one is rounding.
    floor = (0.5 * z.imag).to(scaled.dtype).clamp(min=1e-32 if scaled.dtype == torch.float64 else 1e-16)
    values = (math.log(2.0) * len(scaled) * exponents.double()).to(torch.complex128)

    rows = (scale[:, None, None] * _lower_rows(scaled)).to(complex_dtype)
    rows[:, :, -1] -= z.to(complex_dtype)[:, None]
    for _, window in _columns(rows):
        pivot = window.pivot()
        d = torch.where(pivot.abs() >= floor, pivot, torch.complex(torch.zeros_like(floor), -floor))
        # Exact pivots have Im d < 0; rounding must not put one on the other side of the cut.
        argument = -torch.atan2((-d.imag.double()).clamp(min=0).abs(), d.real.double())  # abs: +0, never -0
        values += torch.complex(d.to(torch.complex128).abs().log(), argument)
        window.eliminate(d)
    return values


class _Window:
    """The rolling (s, b + 1, b + 1) window of Schur complements."""

    def __init__(self, like: Tensor):
        shifts, _, width = like.shape
        self._w = like.new_zeros(shifts, width, width)

    def append(self, row: Tensor) -> None:
        """Set the last row and column: entries (j + b, j .. j + b) of the shifted matrix, (s, b + 1)."""
        self._w[:, -1, :] = row
        self._w[:, :, -1] = row

    def pivot(self) -> Tensor:
        """The leading entry, (s,)."""
        return self._w[:, 0, 0].clone()

    def advance(self) -> None:
        """Drop the leading row and column without an elimination."""
        self._w[:, :-1, :-1] = self._w[:, 1:, 1:].clone()

    def eliminate(self, pivot: Tensor) -> None:
        """Drop the leading row and column with W <- W - m mᵀ / pivot, pivot (s,)."""
        m = self._w[:, 1:, 0].clone()
        multipliers = m / pivot[:, None]
        self.advance()
        self._w[:, :-1, :-1] -= multipliers[:, :, None] * m[:, None, :]


def _columns(rows: Tensor) -> Iterator[tuple[int, _Window]]:
    """Yield (j, window with columns j .. j + b) for every column; the caller eliminates. ``rows``: (s, n, b + 1)."""
    _, n, width = rows.shape
    window = _Window(rows)
    nothing = torch.zeros_like(rows[:, 0])
    for i in range(n + width - 1):
        window.append(rows[:, i] if i < n else nothing)
        if i < width - 1:
            window.advance()
        else:
            yield i - width + 1, window


def _scale_band(band: Tensor) -> tuple[Tensor, int]:
    """Clean copy (n, min(b, n - 1) + 1), zero past the end, times 2^-e so that max |B| is in [1/2, 1); and e."""
    n = band.shape[0]
    dtype = band.dtype if band.dtype == torch.float64 else torch.float32
    clean = band[:, :n].to(dtype, copy=True)
    row = torch.arange(n, device=band.device)[:, None] + torch.arange(clean.shape[1], device=band.device)
    clean[row >= n] = 0
    if not bool(torch.isfinite(clean).all()):
        raise ValueError("band: expected finite entries, found NaN or infinity")
    exponent = int(torch.frexp(clean.abs().max().double()).exponent)
    powers = torch.full(clean.shape, -exponent, dtype=torch.int64, device=band.device)
    return _times_power_of_two(clean.double(), powers).to(dtype), exponent


def _times_power_of_two(values: Tensor, exponents: Tensor) -> Tensor:
    """Exact values * 2^exponents in float64, in three steps so that no factor leaves the range; exponents int64."""
    for _ in range(3):
        part = exponents.clamp(-1022, 1023)
        values = values * ((part + 1023) << 52).view(torch.float64)
        exponents = exponents - part
    return values


def _pivot_floors(scaled: Tensor) -> Tensor:
    """(n,): eps^(3/4) * max(largest entry of the column, eps), for a band scaled to max |B| ~ 1; about 0 for B = 0."""
    eps = torch.finfo(scaled.dtype).eps
    if not bool(scaled.any()):
        return scaled.new_full(scaled.shape[:1], torch.finfo(scaled.dtype).tiny)
    guard = 2.0**-39 if scaled.dtype == torch.float64 else 2.0**-17
    return guard * scaled.abs().amax(dim=1).clamp(min=eps)


def _lower_rows(scaled: Tensor) -> Tensor:
    """(n, b + 1) with rows[i, k] = B[i, i - b + k]: the band by rows, diagonal last, zero before the first column."""
    n, width = scaled.shape
    rows = torch.zeros_like(scaled)
    for d in range(width):
        rows[d:, width - 1 - d] = scaled[: n - d, d]
    return rows
