"""Slicing in readable torch: the truth that the kernels are tested against.

Right-looking LDLᵀ, one column a step, all matrices and shifts at once. For step j a window holds columns j .. j + b of
the Schur complement in band storage, ``W[m, s, c, d]`` the entry d below the diagonal of the c-th of them:

    d = W[0, 0],   k = W[0, 1:],   the lower half of the next b x b entries loses k kᵀ / d,   column j + b + 1 comes in.

Runs on any device; n Python steps of O(m s b²) work. Half precisions are computed in float32 and complex64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from spectrum_fast.measure.ops.sturm.bands import Bands, ScaledBands, scale_complex, scale_real
from spectrum_fast.measure.ops.sturm.brackets import narrow_by


def count_below(bands: Bands, shifts: Tensor) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.count_below`."""
    scaled = bands.scaled
    floors = scaled.rows[:, :, -1]
    x = scale_real(scaled, shifts)
    below = torch.zeros(shifts.shape, dtype=torch.int64, device=shifts.device)
    for j, pivot in _pivots(scaled, torch.ones_like(x), x):
        floor = floors[:, j, None]
        sound = pivot.abs() >= floor  # NaN compares false and is replaced too
        pivot.copy_(torch.where(sound, pivot, torch.where(pivot > 0, floor, -floor)))
        below += pivot < 0
    return below


def narrow(bands: Bands, lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`spectrum_fast.measure.ops.sturm.narrow`."""
    return narrow_by(lambda t: count_below(bands, t * t), lo, hi, ranks, enough)


def log_abs_det(bands: Bands, shifts: Tensor, wanted: Tensor | None = None) -> Tensor:
    """See :func:`spectrum_fast.measure.ops.sturm.log_abs_det`: the sum of the pivots' logarithms."""
    if wanted is not None:
        shifts = torch.where(wanted, shifts, 1j)
    scaled = bands.scaled
    re, im, factor, regained = scale_complex(scaled, shifts)
    # Exact pivots have |d| >= |Im d| >= Im z; a smaller one is rounding.
    floor = (0.5 * im).clamp(min=1e-32 if im.dtype == torch.float64 else 1e-16)
    values = regained
    for _, pivot in _pivots(scaled, factor, torch.complex(re, im)):
        pivot.copy_(torch.where(pivot.abs() >= floor, pivot, torch.complex(torch.zeros_like(floor), -floor)))
        values += pivot.to(torch.complex128).abs().log()
    return values if wanted is None else torch.where(wanted, values, 0.0)


def _pivots(bands: ScaledBands, factor: Tensor, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (j, pivot j of ``factor B - x I``) for every column; what the caller writes into it is divided by."""
    half_width = bands.half_width
    rows = pad(bands.rows[:, : bands.order, :-1], (0, 0, 0, half_width + 1))

    def column(j: int) -> Tensor:
        found = factor[..., None] * rows[:, None, j].to(x.dtype)
        found[..., 0] -= x
        return found

    window = torch.stack([column(j) for j in range(half_width + 1)], dim=-2)
    for j in range(bands.order):
        first = window[..., 0, :]
        yield j, first[..., 0]
        k = first[..., 1:]
        lost = torch.triu((k / first[..., :1])[..., :, None] * k[..., None, :])
        window = torch.cat([window[..., 1:, :], column(j + half_width + 1)[..., None, :]], dim=-2)
        # Entry (r, c) of the rest lies at [c, r - c] of b + 1 columns: at [c, r] of b.
        window.flatten(-2)[..., : half_width**2].unflatten(-1, (half_width, half_width)).sub_(lost)
