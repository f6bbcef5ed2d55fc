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

from spectrum_fast.measure.ops.band import reduce_to_band
from spectrum_fast.measure.ops.device_graph import through_graph
from spectrum_fast.measure.spectra.counts import Slices, to_device
from spectrum_fast.measure.spectra.functionals import Functionals, read_functionals, slice_bands
from spectrum_fast.measure.spectra.matrices import Dense, Matrices
from spectrum_fast.measure.spectra.methods.work import Attempts, Outliers, Work
from spectrum_fast.measure.spectra.probes import bound_gram_error64, measure_gram_error
from spectrum_fast.measure.spectra.refinement import Refinement
from spectrum_fast.measure.spectra.rotation import (
    find_outlier_basis,
    find_outlier_basis_of_weight,
    rotate_in_place,
)
from spectrum_fast.measure.spectra.rounding import Rounding, estimate_rounding, frobenius_norms, scales_of
from spectrum_fast.measure.spectra.sampling import foresee_outliers
from spectrum_fast.measure.spectra.thresholds import Band
from spectrum_fast.measure.spectra.values import read_values

SPIKY = 30.0
"""Spikiness above which outliers are looked for before the reduction."""
FORESEEN = 1.25 * SPIKY
"""Where a sample's estimate must lie for the rotation to come before the first Gram matrix."""
SAMPLED_ENTRIES = 1 << 21
"""Smaller matrices are squared before a sample is taken, which costs them more than it saves."""
UNEVEN = 4.0
"""And where for it to come before a Gram matrix in float64, where the bound in float32 misses the tolerance."""
WIDER_BAND = 1.5
"""Gain in the bulk's rounding for which a band as wide as the rotation is taken, at a fifth to a half more time."""
WORTH_REFINING = 64
"""Values in doubt up to which the quartiles are refined; most are decided when the threshold is known better."""
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
    traces: Tensor
    norms: Tensor

    @property
    def spikiness(self) -> Tensor:
        """``k ||G||_F^2 / trace^2``: 1 for a flat spectrum, 2 for a square Gaussian matrix, k if one value is all."""
        return self.matrices.shape[1] * (self.norms / self.traces).square()

    def take(self, places: Sequence[int]) -> Squares:
        """Some of them."""
        if len(places) == len(self.matrices):
            return self
        chosen = to_device(places, torch.int64, self.matrices.device)
        return Squares(self.matrices[chosen], self.traces[chosen], self.norms[chosen])


def square(matrices: Matrices, traces: Tensor, dtype: torch.dtype) -> Squares:
    """The smaller Gram matrices in ``dtype``, their diagonals corrected by the known traces.

    Sums of squares round downwards a little in every float32 kernel (one sign throughout, measured 1e-6 relative),
    which would shift the whole spectrum. The trace is known in float64, so the diagonal is scaled to it.
    """
    grams = matrices.gram(dtype)
    diagonals = grams.diagonal(dim1=1, dim2=2)
    diagonals *= (traces / diagonals.sum(1, dtype=torch.float64))[:, None].to(dtype)
    return Squares(grams, traces, frobenius_norms(grams))


def square_rotated(rotated: Matrices, traces: Tensor) -> Squares:
    """The smaller Gram matrices, float32, of matrices whose outliers were gathered in their first rows (or columns).

    Their diagonals are formed by themselves, row by row, and summed in float64. The known trace (of the weights before)
    is no help here: rotating changes it by the rounding of the outliers, which spread over the diagonal would shift the
    bulk by several times what it is rounded by.
    """
    diagonals = torch.zeros(len(rotated), min(rotated.shape), dtype=torch.float64, device=rotated.device)
    grams = rotated.gram(torch.float32, diagonals)
    grams.diagonal(dim1=1, dim2=2).copy_(diagonals)
    return Squares(grams, traces, frobenius_norms(grams))


def half_width(size: int, rotated_rank: int = 0, *, on_gpu: bool = False) -> int:
    """Band half-width for a ``size`` x ``size`` Gram matrix whose first ``rotated_rank`` rows hold outliers.

    No less than that rank: rows of outliers below the first panel are mixed with the bulk, which loses what the
    rotation gained (seen: errors a thousand times the bulk's own rounding). Otherwise, slicing costs ``n b^2`` a shift,
    and the reduction gains nothing from a wider band: its tiles are read and written once a panel. Where to change is
    measured by the half_width rows of bench/test_matrix_speed.py. On a GPU a slice takes as long for a narrower band
    (its window has 32 slots), half the panels mean half the launches, and the kernels count on outliers
    (``ROTATION_RANK``) to lie within the first b rows.
    """
    width = 16 if size <= 1024 and not on_gpu else 32
    return min(max(width, rotated_rank), max(size - 1, 1))


def band_float32(work: Work, unsolved: Sequence[int]) -> Attempts:
    """Gram and band in float32 of the matrices that are not spiky; the outliers of the others are looked for."""
    foreseen = list(_foresee(work, unsolved, FORESEEN)) if math.prod(work.matrices.shape) > SAMPLED_ENTRIES else []
    work.outliers = [_rotate(*one) for one in foreseen] if work.rotates else []
    known = {index for index, _, _ in foreseen}
    unsolved = [index for index in unsolved if index not in known]
    if not unsolved:
        return {}
    squares = square(work.matrices.take(unsolved), work.traces(unsolved), torch.float32)
    spikiness = squares.spikiness.tolist()
    spiky = [place for place, value in enumerate(spikiness) if value > SPIKY]
    calm = [place for place, value in enumerate(spikiness) if not value > SPIKY]
    for places in _apart(work, spiky) if work.rotates else ():
        basis = find_outlier_basis(squares.take(places).matrices)
        indices = [unsolved[place] for place in places]
        work.outliers.append(Outliers(indices, basis, [spikiness[place] for place in places]))
    if not calm:
        return {}
    squares, indices = squares.take(calm), [unsolved[place] for place in calm]
    matrices = work.matrices.take(indices)
    scales = scales_of(squares.matrices)
    gram, carried = measure_gram_error(squares.matrices, matrices.image, matrices.plan, scales)
    rounding = estimate_rounding(squares.matrices, squares.norms, gram, scales)
    found = slice_squares(work, squares, rounding, carried, lambda place: matrices.take([place]).image)
    return _attempts(
        work,
        "band-float32",
        indices,
        found,
        [f"{_batch(work, calm)}spikiness {spikiness[place]:.0f} <= {SPIKY:.0f}" for place in calm],
    )


def _apart(work: Work, places: Sequence[int]) -> list[list[int]]:
    """Which matrices with outliers go together: on a CPU none, for which LAPACK takes fewer operations than torch."""
    return [[place] for place in places] if work.schedule.waits else [list(places)] if places else []


def _foresee(work: Work, unsolved: Sequence[int], spikiness: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Matrices (1, m, n) of which a sample, worth a question on a CPU, shows outliers, and their directions there."""
    for index in unsolved if work.schedule.waits else ():
        whole = work.matrices.take([index]).whole()
        if whole is None or whole.is_cuda:
            continue
        start = foresee_outliers(whole[0], work.sums_of_squares[index], spikiness)
        if start is not None:
            yield index, whole, start


def _rotate(index: int, whole: Tensor, start: Tensor) -> Outliers:
    """A matrix rotated before it is squared."""
    rotated = whole.to(torch.float32, copy=True)
    basis = find_outlier_basis_of_weight(rotated, start[None])
    return Outliers([index], basis, None, Dense(rotate_in_place(rotated, basis)))


def band_rotated(work: Work, unsolved: Sequence[int]) -> Attempts:
    """Gram and band in float32 of the matrices whose outliers have been found, rotated into their first rows."""
    attempts: Attempts = {}
    known = {index for one in work.outliers for index in one.indices}
    while work.outliers:  # a copy takes as much memory as the weights
        attempts |= _attempts_rotated(work, work.outliers.pop(0))
    for foreseen in _foresee(work, [index for index in unsolved if index not in known], UNEVEN):
        attempts |= _attempts_rotated(work, _rotate(*foreseen))
    return attempts


def _attempts_rotated(work: Work, rotated: Outliers) -> Attempts:
    indices, basis = rotated.indices, rotated.basis
    stored, spikiness = work.matrices.take(indices), rotated.spikiness
    matrices = stored.rotated(basis) if rotated.rotated is None else rotated.rotated
    squares = square_rotated(matrices, work.traces(indices))
    del rotated, matrices
    spikiness = squares.spikiness.tolist() if spikiness is None else spikiness
    width = half_width(squares.matrices.shape[1], on_gpu=not work.schedule.waits)
    if width < basis.rank and _is_bulk_louder(squares.matrices, width, basis.rank):
        width = half_width(squares.matrices.shape[1], basis.rank)
    rank = min(basis.rank, width)
    rest = frobenius_norms(squares.matrices[:, rank:]) if rank < squares.matrices.shape[1] else None
    scales = scales_of(squares.matrices, rank, rest)

    def image_of(places: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Of the weights as they are stored: what rotating them did is measured with what squaring did."""
        weights, turned = stored.take(places), basis.take(places)
        return lambda x: turned.turn(weights.image(turned.turn(x, back=True)))

    gram, carried = measure_gram_error(squares.matrices, image_of(range(len(indices))), stored.plan, scales)
    rounding = estimate_rounding(squares.matrices, squares.norms, gram, scales, rest)
    found = slice_squares(work, squares, rounding, carried, lambda place: image_of([place]), width)
    reasons = []
    for index, value in zip(indices, spikiness, strict=True):
        compare = ">" if value > SPIKY else "near"  # what was foreseen may turn out to be a little less
        found_out = f"{_batch(work, indices)}spikiness {value:.0f} {compare} {SPIKY:.0f}"
        reasons.append(work.why(index) if index in work.best else found_out)
    return _attempts(work, "band-float32-rotated", indices, found, reasons)


def _is_bulk_louder(grams: Tensor, width: int, rank: int) -> bool:
    """Whether outliers that the first panel of a band of this width does not hold set the rounding of the bulk."""
    if rank == grams.shape[1]:  # no bulk: all rows beyond the first panel hold outliers
        return True
    return bool((frobenius_norms(grams[:, width:]) > WIDER_BAND * frobenius_norms(grams[:, rank:])).any())


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

    def rows_of(*known: Any) -> tuple[Tensor]:
        return (slice_bands(_as_band(size, eps, *known)[0], *wanted),)

    name = ("slices", size, eps, *wanted)
    (rows,) = through_graph(name, rows_of, bands, *known)
    found = read_functionals(rows, size)
    for place, one in enumerate(found):
        if image_of is None or not 0 < one.n_undecided <= WORTH_REFINING or not one.consistent:
            continue
        only = slice(place, place + 1)
        alone: list[Any] = [of if of is None else of[only] for of in known]
        band, its_bands = _as_band(size, eps, bands[only], *alone)
        lost = bound_gram_error64(squares.traces[only], max(work.matrices.shape))
        refinement = Refinement(squares.matrices[only], its_bands, image_of(place), lost)
        (found[place],) = read_functionals(slice_bands(replace(band, refinement=refinement), *wanted), size)
    if not work.request.all_values:
        return found
    band, bands = _as_band(size, eps, bands, *known)
    rows = zip(found, read_values(bands, band.rounding), strict=True)
    return [replace(one, singular_values=values) for one, values in rows]


def _as_band(
    size: int,
    eps: float,
    bands: Tensor,
    gram_traces: Tensor,
    gram_norms: Tensor,
    carried: Tensor | None,
    *of: Tensor,
) -> tuple[Band, Tensor]:
    """What is sliced, and the bands in float64, zeros where trace or norm did not come through; ``of`` a rounding."""
    # Counts are taken in float64 whatever the band was computed in: slicing then adds nothing to the error.
    bands = bands.to(torch.float64)
    traces = bands[:, :, 0].sum(1)
    norms = torch.sqrt(bands[:, :, 0].square().sum(1) + 2 * bands[:, :, 1:].square().sum((1, 2)))
    # An orthogonal similarity keeps both.
    allowed = CONSISTENCY * eps
    consistent = ((traces / gram_traces - 1).abs() <= allowed) & ((norms / gram_norms - 1).abs() <= allowed)
    bands = torch.where(consistent[:, None, None], bands, 0.0)  # what may not be finite is not sliced
    rounding = Rounding(*of, eps=eps)
    if carried is not None:
        rounding = rounding.measured(bands, torch.where(consistent[:, None, None], carried, 0.0))
    return Band(Slices(bands), size, gram_traces, gram_norms, traces, consistent, rounding), bands


def _batch(work: Work, places: Sequence[int]) -> str:
    """How a reason begins where matrices went together."""
    return "" if work.schedule.waits else f"batch of {len(places)}, "


def _attempts(
    work: Work, method: str, indices: Sequence[int], found: list[Functionals], reasons: list[str]
) -> Attempts:
    rows = zip(indices, found, reasons, strict=True)
    return {index: work.attempt(one, method, reason) for index, one, reason in rows}
