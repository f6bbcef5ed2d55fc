"""The fast method: Gram, band reduction, slicing; exact functionals without a single singular value decomposition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import reduce_to_band
from spectrum_fast.measure.ops.sturm import Bands, count_below, log_det, prepare
from spectrum_fast.measure.spectra.counting import CountTable, FloatArray
from spectrum_fast.measure.spectra.functionals import Functionals, slice_functionals
from spectrum_fast.measure.spectra.record import Criterion
from spectrum_fast.measure.spectra.rounding import Rounding
from spectrum_fast.measure.spectra.squares import Squares

_LINEAR_POINTS = 48
CONSISTENCY = 1000.0
"""Change of trace or norm, in eps, beyond which the reduction is called faulty; 20 and less is seen."""


def half_width(size: int, rotated_rank: int = 0, *, on_gpu: bool = False) -> int:
    """Band half-width for a ``size`` x ``size`` Gram matrix whose first ``rotated_rank`` rows hold outliers.

    No less than that rank: rows of outliers below the first panel are mixed with the bulk, which loses what the
    rotation gained (seen: errors a thousand times the bulk's own rounding). Otherwise, slicing costs ``n b^2`` a shift,
    and the reduction gains nothing from a wider band: its tiles are read and written once a panel. Where to change is
    measured by the half_width rows of bench/test_spectrum_speed.py. On a GPU a slice takes as long for a narrower band
    (its window has 32 slots), half the panels mean half the launches, and the kernels count on outliers
    (``ROTATION_RANK``) to lie within the first b rows.
    """
    width = 16 if size <= 1024 and not on_gpu else 32
    return min(max(width, rotated_rank), max(size - 1, 1))


def band_functionals(
    squares: Squares,
    criterion: Criterion,
    n_max: int,
    rounding: Rounding,
    tolerance: float,
    width: int | None = None,
) -> Functionals:
    """Functionals from the Gram matrix of a weight; the matrix is destroyed.

    Args:
        squares: the Gram matrix, float32 or float64; its eigenvalues are the squared singular values.
        criterion: the rule that gives the threshold.
        n_max: long side of the weight.
        rounding: what rounding may have done so far and will do in the reduction.
        tolerance: relative accuracy wanted of the score.
        width: half-width of the band; None leaves it to :func:`half_width`.
    """
    size = squares.matrix.shape[0]
    eps = torch.finfo(squares.matrix.dtype).eps
    width = half_width(size, on_gpu=squares.matrix.is_cuda) if width is None else width
    # Counts are taken in float64 whatever the band was computed in: slicing then adds nothing to the error.
    bands = reduce_to_band(squares.matrix[None], width).to(torch.float64)
    band = bands[0]
    trace = float(band[:, 0].sum())
    if not math.isfinite(trace) or not bool(torch.isfinite(band).all()):
        return Functionals.none()
    prepared = prepare(bands)
    table = CountTable(_count_function(prepared), size)
    grid = _first_grid(squares.trace, squares.norm, size)
    table.add(np.concatenate([grid, _low_grid(grid[1], rounding.floor())]))
    found = slice_functionals(table, _log_det_function(prepared), criterion, n_max, rounding, tolerance, trace)
    return replace(found, consistent=_is_consistent(band, trace, squares, eps))


def _is_consistent(band: Tensor, trace: float, squares: Squares, eps: float) -> bool:
    """Whether the reduction kept trace and Frobenius norm, as an orthogonal similarity must."""
    norm = math.sqrt(float(band[:, 0].square().sum()) + 2 * float(band[:, 1:].square().sum()))
    allowed = CONSISTENCY * eps
    return abs(trace / squares.trace - 1) <= allowed and abs(norm / squares.norm - 1) <= allowed


def _first_grid(trace: float, norm: float, size: int) -> FloatArray:
    """Points that cover the bulk evenly and reach above the largest value: ``s_max^2 <= ||G||_F``."""
    bulk = 3 * math.sqrt(trace / size)
    top = 1.001 * math.sqrt(norm)
    linear = np.linspace(0.0, min(bulk, top), _LINEAR_POINTS)
    return np.concatenate([linear, np.geomspace(bulk, top, 12)[1:]]) if top > bulk else np.append(linear, top)


def _count_function(bands: Bands) -> Callable[[FloatArray], np.ndarray]:
    def count(points: FloatArray) -> np.ndarray:
        shifts = torch.from_numpy(points * points)[None].to(bands.storage.device)
        return count_below(bands, shifts)[0].cpu().numpy()

    return count


def _log_det_function(bands: Bands) -> Callable[[np.ndarray], np.ndarray]:
    def evaluate(shifts: np.ndarray) -> np.ndarray:
        return log_det(bands, torch.from_numpy(shifts)[None].to(bands.storage.device))[0].cpu().numpy()

    return evaluate


def _low_grid(first: float, floor: float) -> FloatArray:
    """Points below the first even one, down to where rounding hides everything: small values weigh most in a bound."""
    return np.geomspace(floor, first, 9)[:-1] if 0 < floor < first else np.zeros(0)
