"""Weights of one shape in, their spectra out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.ops.band import reduce_to_band
from spectrum_fast.measure.ops.decode.coded import CodedWeight
from spectrum_fast.measure.ops.dispatch import MODEL, backend_in_use, use_backend
from spectrum_fast.measure.ops.full_precision import full_precision
from spectrum_fast.measure.spectra.band_method import CONSISTENCY
from spectrum_fast.measure.spectra.batched.functionals import Totals, read_records, slice_batch
from spectrum_fast.measure.spectra.batched.operations import (
    Slices,
    band_half_width,
    to_device,
)
from spectrum_fast.measure.spectra.batched.rounding import BatchRounding, estimate_batch_rounding
from spectrum_fast.measure.spectra.batched.weights import PlainWeights, Weights, as_weights
from spectrum_fast.measure.spectra.engine import (
    DEFAULT_TOLERANCE,
    SMALL_SIDE,
    SPIKY,
    Attempt,
    compute_spectrum,
    to_spectrum,
)
from spectrum_fast.measure.spectra.functionals import Functionals
from spectrum_fast.measure.spectra.measure import Extent, scale_exponent
from spectrum_fast.measure.spectra.record import Criterion, Spectrum
from spectrum_fast.measure.spectra.rotation import find_outlier_basis, rotate
from spectrum_fast.measure.spectra.squares import gram_diagonal


@full_precision()
def compute_spectra(
    weights: Tensor | Sequence[Tensor | CodedWeight],
    criterion: Criterion,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
) -> list[Spectrum | Exception]:
    """Spectra of matrices of one shape, dtype and device, as ``spectra.engine.compute_spectrum``.

    The band method in float32 is tried on all of them together; a matrix that it does not serve (a float64 weight, a
    short side up to 192, extreme scales) or whose error bound misses the tolerance is computed alone, with escalation.

    Args:
        weights: (m, rows, columns), or m matrices; or m matrices in codes, of which a GPU makes no numbers where a
            kernel takes them (:class:`spectrum_fast.measure.spectra.batched.weights.CodedWeights`).
        criterion: the rule that splits signal from noise.
        tolerance: relative accuracy wanted of every score.

    Returns:
        In order, the spectrum of each matrix, or the error that ``compute_spectrum`` would have raised for it: a
        TensorError, or LAPACK's LinAlgError.
    """
    batch = as_weights(weights)
    found: list[Spectrum | Exception | None] = [None] * len(batch)
    if len(batch) and min(batch.shape) > SMALL_SIDE and batch.dtype != torch.float64:
        extents = batch.extents()
        plain = [index for index, extent in enumerate(extents) if _is_plain(extent, batch.dtype)]
        for index, spectrum in _band_together(batch, plain, extents, criterion, tolerance):
            found[index] = spectrum
    with use_backend("auto" if backend_in_use() == MODEL else backend_in_use()):
        for index, spectrum in enumerate(found):
            if spectrum is None:
                try:
                    found[index] = compute_spectrum(batch.numbers(index), criterion, tolerance=tolerance)
                except (TensorError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
                    found[index] = error
    return [spectrum for spectrum in found if spectrum is not None]


def _is_plain(extent: Extent, dtype: torch.dtype) -> bool:
    """Finite, not all zero, and of a scale at which squares neither overflow nor vanish."""
    return extent.finite and extent.max_abs > 0 and scale_exponent(extent.max_abs, dtype) == 0


def _band_together(
    batch: Weights,
    indices: Sequence[int],
    extents: Sequence[Extent],
    criterion: Criterion,
    tolerance: float,
) -> list[tuple[int, Spectrum]]:
    """The band method on the matrices that suit it; those that met the tolerance."""
    if not indices:
        return []
    traces = to_device([extents[index].sum_of_squares for index in indices], torch.float64, batch.device)
    grams, norms = corrected_gram(batch.take(indices), traces)
    spikiness = (grams.shape[1] * (norms / traces).square()).tolist()
    done = []
    for spiky in (False, True):
        places = [place for place, value in enumerate(spikiness) if (value > SPIKY) == spiky]
        if not places:
            continue
        chosen = to_device(places, torch.int64, batch.device)
        some = len(places) < len(indices)
        of_gram, of_norm, trace = (grams[chosen], norms[chosen], traces[chosen]) if some else (grams, norms, traces)
        if spiky:
            basis = find_outlier_basis(of_gram)
            rotated = rotate(batch.take([indices[place] for place in places]).stacked(), basis)
            of_gram, of_norm = corrected_gram(PlainWeights(rotated), gram_diagonal(rotated))
            s_max = torch.sqrt(basis.largest.clamp(min=0))
            rounding = estimate_batch_rounding(of_gram, of_norm, basis.rank, s_max)
            method, compare, rotated_rank = "band-float32-rotated", ">", basis.rank
        else:
            rounding = estimate_batch_rounding(of_gram, of_norm)
            method, compare, rotated_rank = "band-float32", "<=", 0
        width = band_half_width(of_gram, rotated_rank)
        totals, n_max = Totals(trace, of_norm), max(batch.shape)
        attempts = _attempts(of_gram, totals, criterion, n_max, rounding, width, tolerance)
        for place, functionals in zip(places, attempts, strict=True):
            reason = f"batch of {len(places)}, spikiness {spikiness[place]:.0f} {compare} {SPIKY:.0f}"
            attempt = Attempt(functionals, functionals.score_error(), method, reason)
            if attempt.score_error <= tolerance:
                index = indices[place]
                done.append((index, to_spectrum(batch.shape, criterion, attempt, extents[index])))
    return done


def corrected_gram(weights: Weights, known: Tensor) -> tuple[Tensor, Tensor]:
    """Gram matrices with corrected diagonals, and their Frobenius norms.

    Args:
        weights: W.
        known: in float64: (m,) traces, to which the diagonals are scaled, or (m, k) diagonals; of rotated weights the
            latter (:func:`spectrum_fast.measure.spectra.squares.rotated_gram` says why).
    """
    grams = weights.gram()
    diagonals = grams.diagonal(dim1=1, dim2=2)
    if known.ndim == 2:
        diagonals.copy_(known)
    else:
        diagonals *= (known / diagonals.sum(1, dtype=torch.float64))[:, None].to(grams.dtype)
    return grams, torch.linalg.vector_norm(grams, dim=(1, 2), dtype=torch.float64)


def _attempts(
    grams: Tensor,
    totals: Totals,
    criterion: Criterion,
    n_max: int,
    rounding: BatchRounding,
    half_width: int,
    tolerance: float,
) -> list[Functionals]:
    """Reduce, slice, and read one record a matrix; ``grams`` is destroyed."""
    size, eps = grams.shape[1], torch.finfo(grams.dtype).eps
    bands = reduce_to_band(grams, half_width).to(torch.float64)
    traces = bands[:, :, 0].sum(1)
    norms = torch.sqrt(bands[:, :, 0].square().sum(1) + 2 * bands[:, :, 1:].square().sum((1, 2)))
    allowed = CONSISTENCY * eps
    consistent = ((traces / totals.trace - 1).abs() <= allowed) & ((norms / totals.norm - 1).abs() <= allowed)
    columns = slice_batch(Slices(bands), totals, criterion, n_max, rounding, tolerance)
    record = torch.cat([*columns, traces[:, None], consistent[:, None].to(torch.float64)], dim=1).cpu()  # the one wait
    return read_records(record[:, :-2], size, record[:, -2], record[:, -1] != 0)
