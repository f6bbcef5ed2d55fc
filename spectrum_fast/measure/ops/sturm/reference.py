"""Slicing in readable torch: the truth that the kernels are tested against.

Right-looking LDLᵀ, one column a step, all matrices and shifts at once. For step j the window ``W[m, s, r, c]`` holds
the Schur complement's rows and columns j .. j + b:

    d = W[0, 0],   k = W[1:, 0],   next W[:b, :b] = W[1:, 1:] - k kᵀ / d,   next row b = row j + b + 1 of B - x I.

Runs on any device; n Python steps of O(m s b²) work. Half precisions are computed in float32 and complex64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spectrum_fast.measure.ops.sturm.bands import Bands, ScaledBands, scale_bands, scale_complex, scale_real


def prepare(bands: Tensor) -> Bands:
    """Bands with their scaled form."""
    return Bands(bands, scale_bands(bands))


def count_below(bands: Bands, shifts: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.count_below`."""
    scaled = bands.as_scaled()
    floors = scaled.rows[:, :, -1]
    x = scale_real(scaled, shifts)
    below = torch.zeros(shifts.shape, dtype=torch.int64, device=shifts.device)
    for j, window in _columns(scaled, torch.ones_like(x), x):
        pivot, floor = window.pivot(), floors[:, j, None]
        moved = torch.where(pivot > 0, floor, -floor)
        d = torch.where(pivot.abs() >= floor, pivot, moved)  # NaN compares false and is replaced too
        below += d < 0
        window.eliminate(d)
    return below


def log_det(bands: Bands, shifts: Tensor, wanted: Tensor | None = None) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.log_det`: the sum of the principal logarithms of the pivots."""
    if wanted is not None:
        shifts = torch.where(wanted, shifts, 1j)
    scaled = bands.as_scaled()
    re, im, factor, regained = scale_complex(scaled, shifts)
    # Exact pivots have |d| >= |Im d| >= Im z; a smaller one is rounding.
    floor = (0.5 * im).clamp(min=1e-32 if im.dtype == torch.float64 else 1e-16)
    values = regained.to(torch.complex128)
    for _, window in _columns(scaled, factor, torch.complex(re, im)):
        pivot = window.pivot()
        d = torch.where(pivot.abs() >= floor, pivot, torch.complex(torch.zeros_like(floor), -floor))
        # Exact pivots have Im d < 0; rounding must not put one on the other side of the cut.
        argument = -torch.atan2((-d.imag.double()).clamp(min=0).abs(), d.real.double())  # abs: +0, never -0
        values += torch.complex(d.to(torch.complex128).abs().log(), argument)
        window.eliminate(d)
    return values if wanted is None else torch.where(wanted, values, 0.0)


class _Window:
    """The rolling (m, s, b + 1, b + 1) window of Schur complements."""

    def __init__(self, like: Tensor, width: int):
        self._w = like.new_zeros(*like.shape, width, width)

    def append(self, row: Tensor) -> None:
        """Set the last row and column: entries (j + b, j .. j + b) of the shifted matrix, (m, s, b + 1)."""
        self._w[..., -1, :] = row
        self._w[..., :, -1] = row

    def pivot(self) -> Tensor:
        """The leading entry, (m, s)."""
        return self._w[..., 0, 0].clone()

    def advance(self) -> None:
        """Drop the leading row and column without an elimination."""
        self._w[..., :-1, :-1] = self._w[..., 1:, 1:].clone()

    def eliminate(self, pivot: Tensor) -> None:
        """Drop the leading row and column with W <- W - k kᵀ / pivot, pivot (m, s)."""
        k = self._w[..., 1:, 0].clone()
        multipliers = k / pivot[..., None]
        self.advance()
        self._w[..., :-1, :-1] -= multipliers[..., :, None] * k[..., None, :]


def _columns(bands: ScaledBands, factor: Tensor, x: Tensor) -> Iterator[tuple[int, _Window]]:
    """Yield (j, window with columns j .. j + b of ``factor B - x I``) for every column; the caller eliminates."""
    n, width = bands.order, bands.half_width + 1
    rows = _lower_rows(bands.rows[:, :n, :width])
    window = _Window(x, width)
    for i in range(n + width - 1):
        if i < n:
            row = factor[..., None] * rows[:, None, i].to(x.dtype)
            row[..., -1] -= x
            window.append(row)
        else:
            window.append(torch.zeros_like(x)[..., None])
        if i < width - 1:
            window.advance()
        else:
            yield i - width + 1, window


def _lower_rows(scaled: Tensor) -> Tensor:
    """(m, n, b + 1) with rows[i, k] = B[i, i - b + k]: by rows, diagonal last, zero before the first column."""
    _, n, width = scaled.shape
    rows = torch.zeros_like(scaled)
    for d in range(width):
        rows[:, d:, width - 1 - d] = scaled[:, : n - d, d]
    return rows
