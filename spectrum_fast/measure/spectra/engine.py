"""Weights in, spectra out: which method serves each matrix, and the record of what was used and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import TensorError, UnsupportedDtypeError
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.ops.dispatch import (
    WEIGHT_DTYPE_NAMES,
    WEIGHT_DTYPES,
    follows_device_schedule,
    lacks_extension,
)
from spectrum_fast.measure.ops.full_precision import full_precision
from spectrum_fast.measure.spectra.functionals import Functionals
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.matrices import Factored, Matrices, as_matrices
from spectrum_fast.measure.spectra.methods.band import band_float32, band_float64, band_rotated
from spectrum_fast.measure.spectra.methods.svd import decompose
from spectrum_fast.measure.spectra.methods.work import Attempt, Attempts, Request, Work
from spectrum_fast.measure.spectra.options import DEFAULT_TOLERANCE
from spectrum_fast.measure.spectra.record import Criterion, ErrorBounds, SingularValues, Spectrum
from spectrum_fast.measure.spectra.scaling import scale_exponent
from spectrum_fast.measure.spectra.schedule import ADAPTIVE, FIXED, Schedule
from spectrum_fast.read.formats.codes import Codes

SMALL_WORK = 1 << 22
"""Matrices of no more ``n_min^2 n_max`` go to the float64 SVD under ``auto``: it takes 2 ms there, as long as Gram,
band and slices of one among others, and states less error (128 x 128: 2.4 and 2.6 ms; 128 x 512: 5.5 and 2.5)."""
SHORT_IN_FLOAT64 = 256
"""Short sides up to this go straight to float64 on a CPU, which costs 8 % more than float32 and its probes."""
EVEN, EVEN_SIDE = 4.5, 640
"""Nearly square matrices with short sides up to the second do so where their spikiness is above the first: of 60
trained matrices of 576 x 576, whose small values weigh most, 45 of 46 below it met 1e-4 in float32, and 10 of 14
above."""
ROTATED_SIDE = 768
"""Short sides from this on have weights rotated on a CPU where rotating their Gram matrix does not do; below, float64
costs less than a Gram product of numbers that are no longer bfloat16 (49152 x 576: 0.38 and 0.62 s)."""
SMALL_SIDE_OF_REFERENCE = 2048
"""The same where the band is reduced by torch operations because the compiled extension is not there: one thread takes
0.33 s by the SVD and 3.4 s by the band at 1024 x 1024, 4.0 and 15 s at 2048 x 2048, 3.6 and 2.9 s at 1024 x 4096 (on a
busy machine, ``bench/results/without-extension.json``; on a quiet one 2.8 and 5.2 s at 2048 x 2048)."""


@dataclass(frozen=True)
class Extent:
    """Scale of one matrix.

    Attributes:
        max_abs: largest absolute entry; NaN or infinite if the matrix holds such an entry.
        exponent: power of two that the matrix is divided by so that squares neither overflow nor vanish; 0 where they
            are safe as they are.
        sum_of_squares: ``||2^-exponent W||_F^2`` in float64.
    """

    max_abs: float
    exponent: int
    sum_of_squares: float


def compute_spectrum(
    weight: Tensor | BlockMatrix | FactoredMatrix,
    criterion: Criterion,
    *,
    method: str = "auto",
    precision: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
    all_values: bool = False,
) -> Spectrum:
    """The singular spectrum of one matrix, as far as a score needs it: :func:`compute_spectra` for a batch of one.

    A matrix is m x n, float64, float32, float16 or bfloat16, finite; a 1-D tensor counts as 1 x n. One that comes in
    blocks takes a pass over its file for each step; one as two factors a float64 SVD of their core.

    Raises:
        TensorError: the tensor is empty, has a shape that is no matrix, holds NaN or infinity, or has singular values,
            sums of them or a score that are no float64 numbers.
        UnsupportedDtypeError: the dtype is not one of the four above.
        UsageError: an argument is out of range.
        torch.linalg.LinAlgError: LAPACK gave up.
    """
    batch = [as_matrix(weight)] if isinstance(weight, Tensor) else weight
    (found,) = compute_spectra(
        batch, criterion, method=method, precision=precision, tolerance=tolerance, all_values=all_values
    )
    if isinstance(found, Exception):
        raise found
    return found


@full_precision()
@np.errstate(all="ignore")  # as torch computes: what is no number is sorted out where it comes to be
def compute_spectra(
    weights: Tensor | BlockMatrix | FactoredMatrix | Sequence[Tensor | Codes],
    criterion: Criterion,
    *,
    method: str = "auto",
    precision: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
    all_values: bool = False,
) -> list[Spectrum | Exception]:
    """The singular spectra of matrices of one shape, dtype and device, as far as a score needs them.

    Methods are tried in order of cost, each on the matrices whose error bounds miss the tolerance so far. On a GPU the
    matrices of a batch go together, and the device is waited for three times: to learn which are finite, which have
    outliers, and what was found; and again for a matrix with a value too near to its threshold to tell.

    Args:
        weights: (m, r, c), or m matrices; or m matrices in codes, of which a GPU makes no numbers where a kernel takes
            them; or one matrix in blocks or factors.
        criterion: the rule that splits signal from noise, see ``spectrum_fast.measure.scoring.criteria``.
        method: ``auto`` (fastest method whose error bound meets the tolerance), ``band`` or ``svd``.
        precision: working precision; ``auto`` is float32 with escalation for ``band`` and float64 for ``svd``.
        tolerance: relative accuracy wanted of the scores against exact arithmetic on the given weights.
        all_values: every singular value is wanted, too.

    Returns:
        In order, the spectrum of each matrix, ``error_bound`` stating the accuracy reached, ``method`` and ``reason``
        what was used and why; or the error that says why there is none: a TensorError, or LAPACK's LinAlgError.

    Raises:
        UnsupportedDtypeError: a dtype that is not scored.
        UsageError: an argument is out of range.
    """
    request = Request(criterion, method, precision, tolerance, all_values)
    batch = as_matrices(weights)
    if not len(batch):
        return []
    _check_dtype(batch.dtype)
    schedule = FIXED if follows_device_schedule(batch.device.type) else ADAPTIVE
    found: dict[int, Spectrum | Exception] = {}
    for indices in schedule.parts(len(batch), batch.shape):
        part = batch.take(indices)
        part = part.numbers() if schedule.waits else part  # in codes, each step would decode it again
        found.update(zip(indices, _solve(part, request, schedule), strict=True))
    return [found[index] for index in range(len(batch))]


def _solve(part: Matrices, request: Request, schedule: Schedule) -> list[Spectrum | Exception]:
    """Spectra of matrices that go together: of those that need no method, go as they are, or have to be scaled."""
    extents = [
        Extent(largest, scale_exponent(largest, part.dtype), total) for largest, total in part.extents().tolist()
    ]
    found: dict[int, Spectrum | Exception] = {}
    for index, extent in enumerate(extents):
        if not math.isfinite(extent.max_abs):
            found[index] = TensorError(
                f"holds NaN or infinity in {part.take([index]).count_not_finite()} of {math.prod(part.shape)} entries, "
                "expected finite weights; repair or download the checkpoint again"
            )
        elif extent.max_abs == 0.0:
            found[index] = request.criterion.finish(_zero_spectrum(part.shape, request))
    for is_scaled in (False, True):
        indices = [i for i, extent in enumerate(extents) if i not in found and (extent.exponent != 0) == is_scaled]
        if not indices:
            continue
        some, known = part.take(indices), [extents[index] for index in indices]
        if is_scaled:
            some = some.scaled([-extent.exponent for extent in known])
            totals = some.extents()[:, 1].tolist()
            known = [replace(extent, sum_of_squares=total) for extent, total in zip(known, totals, strict=True)]
        attempts = _walk(some, known, request, schedule)
        for place, (index, extent) in enumerate(zip(indices, known, strict=True)):
            attempt = attempts[place]
            found[index] = attempt if isinstance(attempt, Exception) else _finished(part, request, attempt, extent)
    return [found[index] for index in range(len(part))]


Method = Callable[[Work, Sequence[int]], Attempts]


def _ladder(matrices: Matrices, request: Request, schedule: Schedule) -> tuple[list[Method], str]:
    """Methods in order of cost, and why the first one is there."""
    method, precision, dtype = request.method, request.precision, matrices.dtype
    n_min, n_max = sorted(matrices.shape)
    exact: Method = partial(decompose, dtype=torch.float64)
    svd: list[Method] = [partial(decompose, dtype=torch.float32) if precision == "float32" else exact]
    if isinstance(matrices, Factored):
        return [exact], f"as factors of rank {matrices.factors.left.shape[1]}"
    if method == "svd":
        return svd, "asked for"
    without_extension = lacks_extension(matrices.device.type)
    if method == "auto" and without_extension and n_min <= SMALL_SIDE_OF_REFERENCE:
        return svd, f"short side {n_min} <= {SMALL_SIDE_OF_REFERENCE}, no compiled extension"
    if method == "auto" and n_min * n_min * n_max <= SMALL_WORK:
        return svd, "small"
    above: list[Method] = [band_float64] if method == "band" else [band_float64, exact]
    if precision == "float64":
        return above, "asked for"
    if dtype == torch.float64:
        return above, "float64 weights" + (" are not rounded to float32" if precision == "float32" else "")
    if method == "auto" and precision == "auto" and schedule.waits:
        if n_min <= SHORT_IN_FLOAT64:
            return above, f"short side {n_min} <= {SHORT_IN_FLOAT64}"
        if matrices.is_nearly_square and n_min <= EVEN_SIDE:
            reason = f"spikiness above {EVEN}, and short side {n_min} <= {EVEN_SIDE}"
            return [partial(band_float32, at_most=EVEN), *above], reason
        if n_min < ROTATED_SIDE:
            return [band_float32, *above], f"outliers, and short side {n_min} < {ROTATED_SIDE}"
    return [band_float32, band_rotated, *([] if precision == "float32" else above)], "asked for"


def _walk(matrices: Matrices, extents: Sequence[Extent], request: Request, schedule: Schedule) -> Attempts:
    """Down the ladder, until each matrix has an attempt that meets the tolerance; the best one if none does."""
    ladder, reason = _ladder(matrices, request, schedule)
    sums = [extent.sum_of_squares for extent in extents]
    work = Work(matrices, sums, request, schedule, reason)
    for method in ladder:
        unsolved = work.unsolved()
        if not unsolved:
            break
        work.keep(method(work, unsolved))
    return work.best


def _finished(part: Matrices, request: Request, attempt: Attempt, extent: Extent) -> Spectrum | TensorError:
    """The spectrum, or what is wrong with it."""
    try:
        return _to_spectrum(part, request, attempt, extent)
    except TensorError as error:
        return error


def _to_spectrum(part: Matrices, request: Request, attempt: Attempt, extent: Extent) -> Spectrum:
    """Undo the scaling (an exact power of two) and score.

    Raises:
        TensorError: a singular value, a sum of them or the score is no float64 number.
    """
    f, criterion = attempt.functionals, request.criterion
    scale = math.ldexp(1.0, extent.exponent)
    stated = {**vars(f.statistics), "threshold": f.threshold, "signal_sum": f.signal_sum, "noise_sum": f.noise_sum}
    scaled: dict[str, Any] = {key: number * scale for key, number in stated.items()}
    snr = None if f.noise_sum == 0.0 else _score(criterion, f, scale)
    if not math.isfinite(max(*scaled.values(), snr or 0.0)):
        raise TensorError(
            f"entries up to {extent.max_abs:.1e}: expected singular values, sums of them and a score that are finite "
            "in float64, found one that overflows; scale the tensor"
        )
    found = Spectrum(
        shape=part.shape,
        criterion=criterion.name,
        snr=snr,
        noise_free=f.noise_sum == 0.0 and f.n_undecided == 0,
        **scaled,
        n_signal=f.n_signal,
        n_noise=f.n_noise,
        frobenius_residual=abs(f.sum_of_squares / extent.sum_of_squares - 1),
        error_bound=attempt.score_error,
        method=attempt.method,
        reason=attempt.reason + part.note,
        errors=f.field_errors(scale),
        histogram=f.histogram.scaled(scale),
        frobenius_norm=math.sqrt(extent.sum_of_squares) * scale,
        mp_rank=f.mp_rank,
        singular_values=f.singular_values.scaled(scale) if request.all_values and f.singular_values else None,
    )
    return criterion.finish(found)


def _score(criterion: Criterion, f: Functionals, scale: float) -> float:
    """Of the scaled numbers, which are none of the least that float64 has; a score is a product of powers of them."""
    of_one, of_scale = criterion.score(1.0, 1.0, 1.0, 1.0), criterion.score(1.0, 1.0, scale, scale)
    return criterion.score(f.signal_sum, f.noise_sum, f.statistics.s_max, f.threshold) * (of_scale / of_one)


def _zero_spectrum(shape: tuple[int, int], request: Request) -> Spectrum:
    """An all-zero matrix: every value is noise of size zero, and the score is 0 by convention (no signal)."""
    names = ("s_min", "q25", "q50", "q75", "s_max", "threshold", "signal_sum", "noise_sum")
    zeros: dict[str, Any] = dict.fromkeys(names, 0.0)
    return Spectrum(
        shape=shape,
        criterion=request.criterion.name,
        snr=0.0,
        **zeros,
        n_signal=0,
        n_noise=min(shape),
        frobenius_residual=0.0,
        error_bound=0.0,
        method="exact",
        reason="all entries are zero",
        errors=ErrorBounds(**zeros, n_undecided=0, mp_rank=0),
        histogram=Histogram(0.0, 0.0, 0.0, 1, (min(shape),)),
        frobenius_norm=0.0,
        singular_values=SingularValues(np.zeros(min(shape)), np.zeros(min(shape))) if request.all_values else None,
        mp_rank=0,
    )


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as the matrix that is scored: itself, or a vector as one row.

    Raises:
        TensorError: it is empty, or of another shape.
        UnsupportedDtypeError: its dtype is not scored.
    """
    _check_dtype(weight.dtype)
    if weight.dim() not in (1, 2):
        raise TensorError(f"has {weight.dim()} dimensions {tuple(weight.shape)}, expected a matrix (2) or a vector (1)")
    if weight.numel() == 0:
        raise TensorError(f"is empty, shape {tuple(weight.shape)}, expected at least one entry")
    return weight.unsqueeze(0) if weight.dim() == 1 else weight


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in WEIGHT_DTYPES:
        found = str(dtype).removeprefix("torch.")
        raise UnsupportedDtypeError(f"dtype {found} is not scored: expected {WEIGHT_DTYPE_NAMES}")
