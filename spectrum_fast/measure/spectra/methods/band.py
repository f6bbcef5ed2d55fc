"""The fast method: Gram, band reduction, slicing; exact functionals without a single singular value decomposition.

In float32, in float32 with outliers rotated away first, and in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import on_matrix_units, reduce_to_band
from spectrum_fast.measure.ops.device_graph import through_graph
from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.spectra.arrays import Array, functions_of, in_form_of, tensor_of, to_device
from spectrum_fast.measure.spectra.counts import Slices
from spectrum_fast.measure.spectra.functionals import Functionals, read_functionals, slice_bands
from spectrum_fast.measure.spectra.matrices import Matrices
from spectrum_fast.measure.spectra.methods.work import Attempts, Outliers, Work
from spectrum_fast.measure.spectra.probes import bound_gram_error64, measure_gram_error
from spectrum_fast.measure.spectra.refinement import WORTH_REFINING, Refinement
from spectrum_fast.measure.spectra.rotation import GramRotation, find_outlier_basis
from spectrum_fast.measure.spectra.rounding import Rounding, estimate_rounding, frobenius_norms, scales_of
from spectrum_fast.measure.spectra.sampling import foresee_outliers
from spectrum_fast.measure.spectra.thresholds import Band
from spectrum_fast.measure.spectra.values import read_values

SPIKY = 30.0
"""Spikiness above which outliers are looked for before the reduction."""
FORESEEN = 1.25 * SPIKY
"""Where a sample's estimate must lie for it to be rotated away at once."""
SAMPLED_ENTRIES = 1 << 21
"""Smaller matrices are squared before a sample is taken, which costs them more than it saves."""
WIDE_IN_GRAM, SQUARE_IN_GRAM = 80.0, 16.0
"""``||G||_F / sqrt(k)``, in units of the mean eigenvalue beside the outliers, up to which a Gram matrix is rotated on a
CPU instead of the weights; the second of nearly square matrices, whose small values weigh most. Its rounding is said to
be up to 3e-7 of that (seen), of which a bound has three to ten times, and twenty where matrices are square."""
UNEVEN = 4.0
"""And where the bound in float32 misses the tolerance."""
WIDER_BAND, WIDER_BAND_OF_WIDE = 1.5, 10.0
"""Gain in the bulk's rounding for which a band as wide as the rotation is taken, at a tenth to a half more time; the
second of wide matrices, to whose bounds it matters less (1024 x 3584: 3.6e-5 for 2.4e-5 where it is 8.8; of squares of
2048 more than 1e-4 for 4.4e-5 where it is 3.2)."""
CONSISTENCY = 1000.0
"""Change of trace or norm, in eps, beyond which the reduction is called faulty; 20 and less is seen."""


@dataclass(frozen=True)
class Squares:
    """Gram matrices, squared singular values as eigenvalues, and the two norms of each that the method needs.

    Attributes:
        matrices: (m, k, k) symmetric, float32 or float64.
        traces: (m,) sums of their eigenvalues, known in float64 from the weights themselves.
        norms: (m,) ``||G||_F``.
    """

    matrices: Tensor
    traces: Array
    norms: Array

    @property
    def spikiness(self) -> Array:
        """``k ||G||_F^2 / trace^2``: 1 for a flat spectrum, 2 for a square Gaussian matrix, k if one value is all."""
        share = self.norms / self.traces
        return self.matrices.shape[1] * share * share

    def take(self, places: Sequence[int]) -> Squares:
        """Some of them."""
        if len(places) == len(self.matrices):
            return self
        chosen = to_device(places, torch.int64, self.matrices.device)
        of_numbers = in_form_of(self.norms, chosen)
        return Squares(self.matrices[chosen], self.traces[of_numbers], self.norms[of_numbers])


def square(matrices: Matrices, traces: Array, dtype: torch.dtype, *, unrounded: bool = False) -> Squares:
    """The smaller Gram matrices in ``dtype``, their diagonals corrected by the known traces.

    Sums of squares round downwards a little in every float32 kernel (one sign throughout, measured 1e-6 relative),
    which would shift the whole spectrum. The trace is known in float64, so the diagonal is scaled to it.
    """
    grams = matrices.gram(dtype, unrounded=unrounded)
    diagonals = in_form_of(traces, grams.diagonal(dim1=1, dim2=2))
    xp = functions_of(diagonals)
    factors = traces / diagonals.sum(1, dtype=xp.float64)
    diagonals *= xp.asarray(factors, dtype=diagonals.dtype)[:, None]
    return _squares_of(grams, traces)


def _squares_of(grams: Tensor, traces: Array) -> Squares:
    return Squares(grams, traces, in_form_of(traces, frobenius_norms(grams)))


def square_rotated(rotated: Matrices, traces: Array) -> Squares:
    """The smaller Gram matrices, float32, of matrices whose outliers were gathered in their first rows (or columns).

    Their diagonals are formed by themselves, row by row, and summed in float64. The known trace (of the weights before)
    is no help here: rotating changes it by the rounding of the outliers, which spread over the diagonal would shift the
    bulk by several times what it is rounded by.
    """
    diagonals = torch.zeros(len(rotated), min(rotated.shape), dtype=torch.float64, device=rotated.device)
    grams = rotated.gram(torch.float32, diagonals)
    grams.diagonal(dim1=1, dim2=2).copy_(diagonals)
    return _squares_of(grams, traces)


def half_width(size: int, rotated_rank: int = 0, *, on_gpu: bool = False) -> int:
    """Band half-width for a ``size`` x ``size`` Gram matrix whose first ``rotated_rank`` rows hold outliers.

    No less than that rank: rows of outliers below the first panel are mixed with the bulk, which loses what the
    rotation gained (seen: errors a thousand times the bulk's own rounding). Otherwise, slicing costs ``n b^2`` a shift,
    and the reduction gains nothing from a wider band where its tiles, which are read and written once a panel, stay in
    the last cache; unless it runs on matrix units, which take 32 columns at a time. Where to change is measured by the
    half_width rows of bench/test_matrix_speed.py. On a GPU a slice takes as long for a narrower band (its window has 32
    slots), half the panels mean half the launches, and the kernels count on outliers (``ROTATION_RANK``) to lie within
    the first b rows.
    """
    narrow = not on_gpu and (size <= 1024 or (size <= 2048 and not on_matrix_units()))
    width = 16 if narrow else 32
    return min(max(width, rotated_rank), max(size - 1, 1))


def band_float32(work: Work, unsolved: Sequence[int], at_most: float = math.inf) -> Attempts:
    """Gram and band in float32; on a CPU of a matrix with outliers its Gram matrix is rotated, elsewhere they wait.

    Matrices whose spikiness is above ``at_most`` are left alone.
    """
    attempts: Attempts = {}
    foreseen = dict(_foresee(work, unsolved)) if at_most > SPIKY else {}
    for index, start in foreseen.items():
        squares = _unrounded(work, index)
        outliers = _find_outliers(work, squares, [index], squares.spikiness.tolist(), start)
        attempts |= _rotated_in_gram(work, squares, outliers)
    unsolved = [index for index in unsolved if index not in foreseen]
    if not unsolved:
        return attempts
    squares = square(work.matrices.take(unsolved), work.traces(unsolved), torch.float32)
    spikiness = squares.spikiness.tolist()
    spiky = [place for place, value in enumerate(spikiness) if SPIKY < value <= at_most]
    calm = [place for place, value in enumerate(spikiness) if not value > min(SPIKY, at_most)]
    for places in _apart(work, spiky):
        some = squares.take(places)
        outliers = _find_outliers(work, some, [unsolved[p] for p in places], [spikiness[p] for p in places])
        attempts |= _rotated_in_gram(work, some, outliers) if work.schedule.waits else {}
    work.uneven |= {unsolved[place] for place in calm if spikiness[place] > UNEVEN}
    if calm:
        indices, told = [unsolved[place] for place in calm], [spikiness[place] for place in calm]
        found = _as_they_are(work, squares.take(calm), work.matrices.take(indices), told)
        reasons = [f"{_batch(work, calm)}spikiness {value:.0f} <= {SPIKY:.0f}" for value in told]
        attempts |= _attempts(work, "band-float32", indices, found, reasons)
    return attempts


def _as_they_are(work: Work, squares: Squares, matrices: Matrices, spikiness: list[float]) -> list[Functionals]:
    """From Gram matrices without outliers, which are destroyed."""

    def image_of(places: Sequence[int]) -> Callable[[Tensor], Tensor]:
        return matrices.take(places).image

    scales = scales_of(squares.matrices)
    plans = [matrices.plan(value if work.schedule.waits else 0.0) for value in spikiness]
    gram, carried = measure_gram_error(squares.matrices, image_of, plans, scales)
    rounding = estimate_rounding(squares.matrices, squares.norms, in_form_of(squares.norms, gram), scales)
    return slice_squares(work, squares, rounding, carried, lambda place: image_of([place]))


def _foresee(work: Work, unsolved: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Matrices of which a sample, worth a question on a CPU, shows outliers, and their directions there."""
    worth = work.schedule.waits and math.prod(work.matrices.shape) > SAMPLED_ENTRIES
    for index in unsolved if worth else ():
        whole = work.matrices.take([index]).whole()
        if whole is None or whole.is_cuda:
            continue
        start = foresee_outliers(whole[0], work.sums_of_squares[index], FORESEEN)
        if start is not None:
            yield index, start


def _apart(work: Work, places: Sequence[int]) -> list[list[int]]:
    """Which matrices with outliers go together: on a CPU none, for which LAPACK takes fewer operations than torch."""
    return [[place] for place in places] if work.schedule.waits else [list(places)] if places else []


def _find_outliers(
    work: Work, squares: Squares, indices: list[int], spikiness: list[float], start: Tensor | None = None
) -> Outliers:
    """Of these matrices, kept for the methods to come."""
    outliers = Outliers(indices, find_outlier_basis(squares.matrices, start), spikiness)
    work.outliers.append(outliers)
    return outliers


def _unrounded(work: Work, index: int) -> Squares:
    return square(work.matrices.take([index]), work.traces([index]), torch.float64, unrounded=True)


def _rotated_in_gram(work: Work, squares: Squares, outliers: Outliers) -> Attempts:
    """A matrix whose Gram matrix is rotated, before it is rounded to float32; none where outliers tower too far."""
    basis, size = outliers.basis, squares.matrices.shape[1]
    rotation = GramRotation.of(squares.matrices, basis)
    rest = 1 - float(rotation.gathered()[0]) / float(squares.traces[0])
    bulk = rest * size / max(size - basis.rank, 1)  # mean eigenvalue, in units of that of all
    most = SQUARE_IN_GRAM if work.matrices.is_nearly_square else WIDE_IN_GRAM
    if not math.sqrt(outliers.spikiness[0]) <= most * bulk:
        return {}
    if squares.matrices.dtype == torch.float32:
        rotation = GramRotation.of(_unrounded(work, outliers.indices[0]).matrices, basis)
    return _attempts_rotated(work, outliers, _squares_of(rotation.form(), squares.traces))


def band_rotated(work: Work, unsolved: Sequence[int]) -> Attempts:
    """The same with the weights rotated before they are squared, and on a CPU uneven matrices in their Gram matrix."""
    attempts: Attempts = {}
    while work.outliers:  # a copy takes as much memory as the weights
        outliers = work.outliers.pop(0).among(unsolved)
        if outliers.indices:
            rotated = work.matrices.take(outliers.indices).rotated(outliers.basis)
            attempts |= _attempts_rotated(work, outliers, square_rotated(rotated, work.traces(outliers.indices)))
    for index in unsolved:
        if index in work.uneven and work.schedule.waits:
            squares = _unrounded(work, index)
            outliers = _find_outliers(work, squares, [index], squares.spikiness.tolist())
            attempts |= _rotated_in_gram(work, squares, outliers)
    return attempts


def _attempts_rotated(work: Work, outliers: Outliers, squares: Squares) -> Attempts:
    """From Gram matrices with the outliers in their first rows, which are destroyed."""
    indices, basis = outliers.indices, outliers.basis
    stored = work.matrices.take(indices)
    width = half_width(squares.matrices.shape[1], on_gpu=not work.schedule.waits)
    gain = WIDER_BAND if stored.is_nearly_square else WIDER_BAND_OF_WIDE
    if width < basis.rank and _is_bulk_louder(squares.matrices, width, basis.rank, gain):
        width = half_width(squares.matrices.shape[1], basis.rank)
    rank = min(basis.rank, width)
    rest = frobenius_norms(squares.matrices[:, rank:]) if rank < squares.matrices.shape[1] else None
    scales = scales_of(squares.matrices, rank, rest)

    def image_of(places: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Of the weights as they are stored: what rotating did is measured with what squaring did."""
        weights, turned = stored.take(places), basis.take(places)
        return lambda x: turned.turn(weights.image(turned.turn(x, back=True)))

    gram, carried = measure_gram_error(squares.matrices, image_of, [stored.plan()] * len(indices), scales)
    rounding = estimate_rounding(squares.matrices, squares.norms, in_form_of(squares.norms, gram), scales, rest)
    found = slice_squares(work, squares, rounding, carried, lambda place: image_of([place]), width)
    reasons = []
    for index, value in zip(indices, outliers.spikiness, strict=True):
        compare = ">" if value > SPIKY else "near"  # what was foreseen may turn out to be a little less
        found_out = f"{_batch(work, indices)}spikiness {value:.0f} {compare} {SPIKY:.0f}"
        reasons.append(work.why(index) if index in work.best else found_out)
    return _attempts(work, "band-float32-rotated", indices, found, reasons)


def _is_bulk_louder(grams: Tensor, width: int, rank: int, gain: float) -> bool:
    """Whether outliers that the first panel of a band of this width does not hold set the rounding of the bulk."""
    if rank == grams.shape[1]:  # no bulk: all rows beyond the first panel hold outliers
        return True
    return bool((frobenius_norms(grams[:, width:]) > gain * frobenius_norms(grams[:, rank:])).any())


def band_float64(work: Work, unsolved: Sequence[int]) -> Attempts:
    """Gram and band in float64; on a GPU one matrix after the other: few come here, their Gram matrices are large."""
    attempts: Attempts = {}
    for indices in [list(unsolved)] if work.schedule.waits else [[index] for index in unsolved]:
        squares = square(work.matrices.take(indices), work.traces(indices), torch.float64)
        bound = bound_gram_error64(squares.traces, max(work.matrices.shape))
        rounding = estimate_rounding(squares.matrices, squares.norms, bound, scales_of(squares.matrices))
        found = slice_squares(work, squares, rounding)
        attempts |= _attempts(work, "band-float64", indices, found, [work.why(index) for index in indices])
    return attempts


def slice_squares(
    work: Work,
    squares: Squares,
    rounding: Rounding,
    carried: Tensor | None = None,
    image_of: Callable[[int], Callable[[Tensor], Tensor]] | None = None,
    width: int | None = None,
) -> list[Functionals]:
    """Functionals from Gram matrices, which are destroyed.

    Args:
        work: what is wanted.
        squares: float32 or float64.
        rounding: what rounding may have done so far and will do in the reduction.
        carried: vectors that measure it; None where the worst case is known.
        image_of: gives for a matrix what gives ``W W^T x`` in float64, by which values in doubt are refined.
        width: half-width of the band; None leaves it to :func:`half_width`.
    """
    size, eps = squares.matrices.shape[1], torch.finfo(squares.matrices.dtype).eps
    width = half_width(size, on_gpu=not work.schedule.waits) if width is None else width
    bands = reduce_to_band(squares.matrices, width, carried, image_of is not None)
    known = squares.traces, squares.norms, carried, *rounding.tensors
    wanted = work.request.criterion, max(work.matrices.shape), work.request.tolerance, work.schedule

    def refinable(place: int) -> Band:
        only = slice(place, place + 1)
        band, its_bands = _as_band(size, eps, bands[only], *[of if of is None else of[only] for of in known])
        if image_of is None:
            return band
        lost = tensor_of(bound_gram_error64(squares.traces[only], max(work.matrices.shape)))
        return replace(band, refinement=Refinement(squares.matrices[only], its_bands, image_of(place), lost))

    def rows_of(*known: Any) -> tuple[Array]:
        return (slice_bands(_as_band(size, eps, *known)[0], *wanted),)

    if work.schedule.waits and len(bands) == 1:
        found = read_functionals(slice_bands(refinable(0), *wanted), size)
    else:
        (rows,) = through_graph(("slices", size, eps, *wanted), rows_of, bands, *known)
        found = read_functionals(rows, size)
        for place, one in enumerate(found):
            if image_of is not None and 0 < one.n_undecided <= WORTH_REFINING and one.consistent:
                (found[place],) = read_functionals(slice_bands(refinable(place), *wanted), size)
    if not work.request.all_values:
        return found
    band, bands = _as_band(size, eps, bands, *known)
    rows = zip(found, read_values(bands, band.rounding), strict=True)
    return [replace(one, singular_values=values) for one, values in rows]


def _as_band(
    size: int, eps: float, bands: Tensor, gram_traces: Array, gram_norms: Array, carried: Tensor | None, *of: Any
) -> tuple[Band, Tensor]:
    """What is sliced, and the bands in float64, zeros where trace or norm did not come through; ``of`` a rounding."""
    rounding = Rounding(*of, eps=eps)
    sums = in_form_of(gram_norms, measure(bands)[:, 1])
    # Counts are taken in float64 whatever the band was computed in: slicing then adds nothing to the error.
    bands = bands.to(torch.float64)
    diagonals = in_form_of(gram_norms, bands[:, :, 0])
    xp, traces = functions_of(sums), diagonals.sum(1)
    norms = xp.sqrt(2 * sums - (diagonals * diagonals).sum(1))
    # An orthogonal similarity keeps both.
    allowed = CONSISTENCY * eps
    consistent = (abs(traces / gram_traces - 1) <= allowed) & (abs(norms / gram_norms - 1) <= allowed)
    if xp is torch or not consistent.all():  # what may not be finite is not sliced
        kept = tensor_of(consistent)[:, None, None]
        bands = torch.where(kept, bands, 0.0)
        carried = None if carried is None else torch.where(kept, carried, 0.0)
    if carried is not None:
        rounding = rounding.measured(bands, carried)
    return Band(Slices(bands), size, gram_traces, gram_norms, traces, consistent, rounding), bands


def _batch(work: Work, places: Sequence[int]) -> str:
    """How a reason begins where matrices went together."""
    return "" if work.schedule.waits else f"batch of {len(places)}, "


def _attempts(
    work: Work, method: str, indices: Sequence[int], found: list[Functionals], reasons: list[str]
) -> Attempts:
    rows = zip(indices, found, reasons, strict=True)
    return {index: work.attempt(one, method, reason) for index, one, reason in rows}
