"""Which method serves one matrix, and the record of what was used and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError, UnsupportedDtypeError, UsageError
from spectrum_fast.measure.ops.full_precision import full_precision
from spectrum_fast.measure.spectra.band_method import band_functionals, half_width
from spectrum_fast.measure.spectra.blockwise import count_not_finite
from spectrum_fast.measure.spectra.functionals import Functionals
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.measure import Extent, measure_extent
from spectrum_fast.measure.spectra.options import DEFAULT_TOLERANCE, METHODS, PRECISIONS
from spectrum_fast.measure.spectra.record import Criterion, Spectrum
from spectrum_fast.measure.spectra.rotation import (
    OutlierBasis,
    find_outlier_basis,
    find_outlier_basis_of_weight,
    rotate,
    rotate_in_place,
)
from spectrum_fast.measure.spectra.rounding import estimate_rounding
from spectrum_fast.measure.spectra.rsvd_method import rsvd_functionals
from spectrum_fast.measure.spectra.sampling import foresee_outliers
from spectrum_fast.measure.spectra.squares import rotated_gram, weight_gram
from spectrum_fast.measure.spectra.svd_method import svd_functionals
from spectrum_fast.read.stream import BlockMatrix

SMALL_SIDE = 192
"""Short sides up to this go to the float64 SVD under ``auto``: there it takes 2 to 6 ms, as long as Gram, band and
slices (3 ms), and states the smaller error."""
SPIKY = 30.0
"""Spikiness above which outliers are looked for before the reduction."""
FORESEEN = 1.25
"""How far above that a sample's estimate must lie for the rotation to come before the first Gram matrix."""
WIDER_BAND = 1.5
"""Gain in the bulk's rounding for which a band as wide as the rotation is taken, at a fifth to a half more time."""
_FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Attempt:
    """One method's answer: functionals, the bound on the score's relative error, and how it was got."""

    functionals: Functionals
    score_error: float
    method: str
    reason: str


@full_precision()
def compute_spectrum(
    weight: Tensor | BlockMatrix,
    criterion: Criterion,
    *,
    method: str = "auto",
    precision: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
) -> Spectrum:
    """The singular spectrum of one matrix, as far as a score needs it.

    Args:
        weight: m x n, float64, float32, float16 or bfloat16, finite; a 1-D tensor counts as 1 x n. One that comes in
            blocks takes a pass over its file for each step, see :mod:`spectrum_fast.measure.spectra.blockwise`.
        criterion: the rule that splits signal from noise, see ``spectrum_fast.measure.scoring.criteria``.
        method: ``auto`` (fastest method whose error bound meets the tolerance), ``band``, ``svd``, or ``rsvd``, an
            estimate whose ``error_bound`` is measured, not proved (:mod:`spectrum_fast.measure.spectra.rsvd_method`).
        precision: working precision; ``auto`` is float32 with escalation for ``band`` and float64 for ``svd``.
        tolerance: relative accuracy wanted of the score against exact arithmetic on the given weights.

    Returns:
        The record; ``error_bound`` states the accuracy reached, ``method`` and ``reason`` what was used and why.

    Raises:
        TensorError: the tensor is empty, has a shape that is no matrix, or holds NaN or infinity.
        UnsupportedDtypeError: the dtype is not one of the four above.
        UsageError: an argument is out of range.
    """
    _check_arguments(method, precision, tolerance)
    matrix = _as_matrix(weight)
    scaled, extent = measure_extent(matrix)
    if not extent.finite:
        count = count_not_finite(matrix) if isinstance(matrix, BlockMatrix) else int((~torch.isfinite(matrix)).sum())
        raise TensorError(
            f"holds NaN or infinity in {count} of {matrix.numel()} entries, expected finite weights; "
            "repair or download the checkpoint again"
        )
    rows, columns = matrix.shape
    if extent.max_abs == 0.0:
        return _zero_spectrum((rows, columns), criterion)
    attempt = _best_attempt(scaled, extent, criterion, method, precision, tolerance)
    found = to_spectrum((rows, columns), criterion, attempt, extent)
    if isinstance(matrix, BlockMatrix):
        return replace(found, reason=f"{found.reason}; {matrix.count}")
    return found


def _best_attempt(
    matrix: Tensor | BlockMatrix,
    extent: Extent,
    criterion: Criterion,
    method: str,
    precision: str,
    tolerance: float,
) -> Attempt:
    """The first attempt that meets the tolerance, in order of cost; the last one if none does."""
    n_min, n_max = min(matrix.shape), max(matrix.shape)
    if method == "svd" or (method == "auto" and n_min <= SMALL_SIDE):
        dtype = torch.float32 if precision == "float32" else torch.float64
        reason = "asked for" if method == "svd" else f"short side {n_min} <= {SMALL_SIDE}"
        return _svd_attempt(matrix, criterion, dtype, reason)
    trouble = "asked for"
    if method == "rsvd":
        if n_min <= SMALL_SIDE:
            return _svd_attempt(matrix, criterion, torch.float64, f"short side {n_min} <= {SMALL_SIDE}")
        if isinstance(matrix, Tensor):
            functionals, error, reason = rsvd_functionals(matrix, criterion)
            return Attempt(functionals, error, "rsvd", reason)
        trouble = "rsvd needs the whole matrix"
    attempt = None
    if precision != "float64" and matrix.dtype != torch.float64:
        attempt = _band_float32(matrix, extent, criterion, tolerance, forced=precision == "float32")
        if attempt.score_error <= tolerance or precision == "float32":
            return attempt
        trouble = _trouble("float32", attempt, tolerance)
    elif matrix.dtype == torch.float64 and precision != "float64":
        trouble = "float64 weights are not rounded to float32" if precision == "float32" else "float64 weights"
    squares = weight_gram(matrix, torch.float64, extent.sum_of_squares)
    functionals = band_functionals(squares, criterion, n_max, estimate_rounding(squares), tolerance)
    attempt = Attempt(functionals, functionals.score_error(), "band-float64", trouble)
    if attempt.score_error <= tolerance or method == "band":
        return attempt
    return _svd_attempt(matrix, criterion, torch.float64, _trouble("float64 band", attempt, tolerance))


def _trouble(what: str, attempt: Attempt, tolerance: float) -> str:
    """Why an attempt was not good enough."""
    if not attempt.functionals.consistent:
        return f"{what}: trace or norm changed in the reduction, a kernel is at fault"
    return f"{what} bound {attempt.score_error:.1e} over {tolerance:.0e}"


def _band_float32(
    matrix: Tensor | BlockMatrix, extent: Extent, criterion: Criterion, tolerance: float, *, forced: bool
) -> Attempt:
    """Gram and band in float32, with the outlier rotation where it is needed."""
    n_max = max(matrix.shape)
    foreseen = _rotate_what_is_foreseen(matrix, extent)
    if foreseen is None:
        whole = matrix.to(torch.float32) if forced else matrix
        squares = weight_gram(whole, torch.float32, extent.sum_of_squares)
        if squares.spikiness <= SPIKY:
            functionals = band_functionals(squares, criterion, n_max, estimate_rounding(squares), tolerance)
            reason = f"spikiness {squares.spikiness:.0f} <= {SPIKY:.0f}"
            return Attempt(functionals, functionals.score_error(), "band-float32", reason)
        basis = find_outlier_basis(squares.matrix)
        del squares
        foreseen = rotate(matrix, basis), basis
    rotated, basis = foreseen
    squares = rotated_gram(rotated, extent.sum_of_squares)
    s_max = math.sqrt(max(float(basis.largest), 0.0))
    width = half_width(squares.matrix.shape[0], on_gpu=squares.matrix.is_cuda)
    rounding = estimate_rounding(squares, min(basis.rank, width), s_max)
    if width < basis.rank:  # a wider band where more outliers than the first panel holds would set the bulk's rounding
        wide = estimate_rounding(squares, basis.rank, s_max)
        if rounding.point > WIDER_BAND * wide.point:
            rounding, width = wide, half_width(squares.matrix.shape[0], basis.rank)
    spikiness = squares.spikiness
    functionals = band_functionals(squares, criterion, n_max, rounding, tolerance, width)
    compare = ">" if spikiness > SPIKY else "near"  # what was foreseen may turn out to be a little less
    reason = f"spikiness {spikiness:.0f} {compare} {SPIKY:.0f}"
    return Attempt(functionals, functionals.score_error(), "band-float32-rotated", reason)


def _rotate_what_is_foreseen(matrix: Tensor | BlockMatrix, extent: Extent) -> tuple[Tensor, OutlierBasis] | None:
    """The rotated weight, if a sample of it shows outliers; on a GPU a Gram matrix costs less than to wait for that."""
    if not isinstance(matrix, Tensor) or matrix.is_cuda:
        return None
    start = foresee_outliers(matrix, extent.sum_of_squares, FORESEEN * SPIKY)
    if start is None:
        return None
    rotated = matrix.to(torch.float32, copy=True)
    basis = find_outlier_basis_of_weight(rotated, start)
    return rotate_in_place(rotated, basis), basis


def _svd_attempt(matrix: Tensor | BlockMatrix, criterion: Criterion, dtype: torch.dtype, reason: str) -> Attempt:
    functionals = svd_functionals(matrix, criterion, dtype)
    name = "svd-float32" if dtype == torch.float32 else "svd-float64"
    return Attempt(functionals, functionals.score_error(), name, reason)


def to_spectrum(shape: tuple[int, int], criterion: Criterion, attempt: Attempt, extent: Extent) -> Spectrum:
    """Undo the scaling (an exact power of two) and score.

    Raises:
        TensorError: a singular value, a sum of them or the score is no float64 number.
    """
    f = attempt.functionals
    scale = math.ldexp(1.0, extent.exponent)
    noise_free = f.noise_sum == 0.0 and f.n_undecided == 0
    signal_sum, noise_sum = f.signal_sum * scale, f.noise_sum * scale
    s_max, threshold = f.statistics.s_max * scale, f.threshold * scale
    snr = None if f.noise_sum == 0.0 else _score(criterion, f, scale)
    if not math.isfinite(max(s_max, threshold, signal_sum, noise_sum, snr or 0.0)):
        raise TensorError(
            f"entries up to {extent.max_abs:.1e}: expected singular values, sums of them and a score that are finite "
            "in float64, found one that overflows; scale the tensor"
        )
    return Spectrum(
        shape=shape,
        criterion=criterion.name,
        snr=snr,
        noise_free=noise_free,
        s_max=s_max,
        s_min=f.statistics.s_min * scale,
        q25=f.statistics.q25 * scale,
        q50=f.statistics.q50 * scale,
        q75=f.statistics.q75 * scale,
        threshold=threshold,
        signal_sum=signal_sum,
        noise_sum=noise_sum,
        n_signal=f.n_signal,
        n_noise=f.n_noise,
        frobenius_residual=abs(f.sum_of_squares / extent.sum_of_squares - 1),
        error_bound=attempt.score_error,
        method=attempt.method,
        reason=attempt.reason,
        histogram=f.histogram.scaled(scale),
    )


def _score(criterion: Criterion, f: Functionals, scale: float) -> float:
    """Of the scaled numbers, which are none of the least that float64 has; a score is a product of powers of them."""
    of_one, of_scale = criterion.score(1.0, 1.0, 1.0, 1.0), criterion.score(1.0, 1.0, scale, scale)
    return criterion.score(f.signal_sum, f.noise_sum, f.statistics.s_max, f.threshold) * (of_scale / of_one)


def _zero_spectrum(shape: tuple[int, int], criterion: Criterion) -> Spectrum:
    """An all-zero matrix: every value is noise of size zero, and the score is 0 by convention (no signal)."""
    return Spectrum(
        shape=shape,
        criterion=criterion.name,
        snr=0.0,
        noise_free=False,
        s_max=0.0,
        s_min=0.0,
        q25=0.0,
        q50=0.0,
        q75=0.0,
        threshold=0.0,
        signal_sum=0.0,
        noise_sum=0.0,
        n_signal=0,
        n_noise=min(shape),
        frobenius_residual=0.0,
        error_bound=0.0,
        method="exact",
        reason="all entries are zero",
        histogram=Histogram(0.0, 0.0, 0.0, 1, (min(shape),)),
    )


def _check_arguments(method: str, precision: str, tolerance: float) -> None:
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance must lie in (0, 1), found {tolerance!r}")


@overload
def _as_matrix(weight: Tensor) -> Tensor: ...
@overload
def _as_matrix(weight: BlockMatrix) -> BlockMatrix: ...
def _as_matrix(weight: Tensor | BlockMatrix) -> Tensor | BlockMatrix:
    if weight.dtype not in _FLOAT_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _FLOAT_DTYPES)
        raise UnsupportedDtypeError(f"dtype {str(weight.dtype).removeprefix('torch.')} is not scored: expected {names}")
    if isinstance(weight, BlockMatrix):
        return weight
    if weight.dim() not in (1, 2):
        raise TensorError(f"has {weight.dim()} dimensions {tuple(weight.shape)}, expected a matrix (2) or a vector (1)")
    if weight.numel() == 0:
        raise TensorError(f"is empty, shape {tuple(weight.shape)}, expected at least one entry")
    matrix = weight.detach()
    return matrix.unsqueeze(0) if matrix.dim() == 1 else matrix
