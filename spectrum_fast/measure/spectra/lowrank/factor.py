"""``sf.svd_lowrank``: from matrices of any shapes to their leading singular triplets and the error that is left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError, UnsupportedDtypeError, UsageError
from spectrum_fast.measure.ops.dispatch import WEIGHT_DTYPE_NAMES, WEIGHT_DTYPES
from spectrum_fast.measure.ops.extent import measure
from spectrum_fast.measure.ops.full_precision import full_precision
from spectrum_fast.measure.spectra.lowrank.basis import krylov_basis, orthonormalise
from spectrum_fast.measure.spectra.lowrank.residual import frobenius_error, spectral_bound
from spectrum_fast.measure.spectra.scaling import scale_by_power_of_two, scale_exponent

DEFAULT_ITERATIONS = 4
"""Passes of ``W W^T``: values above the bulk of a trained-like matrix come out to 1e-5, those inside to 1 %
(tests/measure/spectra/test_lowrank.py)."""
DEFAULT_OVERSAMPLE = 16
_SEED = 20406
_FIRST_RANK = 32
"""Rank that an adaptive run begins with; it doubles until the tolerance is met."""
_BASIS_COLUMNS = 640
"""Columns of the Krylov basis beyond which only two blocks are kept: its dense SVD would outweigh the passes."""
_BATCH_BYTES = 1 << 29


@dataclass(frozen=True)
class LowRankSvd:
    """``W ~ U diag(s) V^T`` and how far that is from W.

    Attributes:
        u: (m, k) with orthonormal columns, float32 (float64 for a float64 weight), on the weight's device; None where
            vectors were not asked for.
        s: (k,) singular values, falling, float64 on the CPU.
        vh: (k, n) with orthonormal rows, like ``u``.
        norm: ``||W||_F``.
        frobenius_error: ``||W - U S V^T||_F``, measured; to 1e-3 of itself or ``eps`` of ``norm``.
        spectral_bound: upper bound on ``||W - U S V^T||_2`` (probability 1 - 1e-10), at most three times too large.
        method: ``krylov``, or ``svd`` where the matrix is too small for a sketch to pay.
    """

    u: Tensor | None
    s: Tensor
    vh: Tensor | None
    norm: float
    frobenius_error: float
    spectral_bound: float
    method: str

    @property
    def rank(self) -> int:
        """Triplets found; less than asked for where the tolerance allows it or the matrix is smaller."""
        return self.s.shape[0]

    @property
    def relative_error(self) -> float:
        """``||W - U S V^T||_F / ||W||_F``; 0 for a zero matrix."""
        return self.frobenius_error / self.norm if self.norm else 0.0

    def matrix(self, dtype: torch.dtype | None = None) -> Tensor:
        """``U diag(s) V^T`` (m, n), in ``dtype`` or that of the factors.

        Raises:
            UsageError: the vectors were not asked for.
        """
        if self.u is None or self.vh is None:
            raise UsageError("matrix: expected singular vectors, found none; compute with vectors=True")
        product = (self.u * self.s.to(self.u.device, self.u.dtype)) @ self.vh
        return product if dtype is None else product.to(dtype)


@full_precision()
def svd_lowrank(
    tensors: Tensor | Sequence[Tensor],
    rank: int,
    *,
    n_iter: int = DEFAULT_ITERATIONS,
    oversample: int = DEFAULT_OVERSAMPLE,
    vectors: bool = True,
    tolerance: float | None = None,
) -> LowRankSvd | list[LowRankSvd]:
    """Leading singular triplets of one matrix or many, by a randomized block Krylov method.

    Matrices of one shape, type and device are worked on together. Everything is torch operations on the tensors' own
    device; the random start is seeded, so equal input gives equal output on one machine.

    Args:
        tensors: a matrix (m, n), a batch (b, m, n), or a sequence of matrices of any shapes; float64, float32, float16
            or bfloat16, finite. Never changed.
        rank: triplets wanted, at least 1; no more than ``min(m, n)`` are found.
        n_iter: applications of ``W W^T``, 0 or more. Each reads W twice and sharpens values inside the bulk.
        oversample: extra columns of the sketch, 0 or more.
        vectors: return U and V; without them only ``s`` and the errors.
        tolerance: in (0, 1): as few triplets as reach ``||W - U S V^T||_F <= tolerance ||W||_F``, at most ``rank``.
            If ``rank`` does not reach it, ``relative_error`` says so.

    Returns:
        One result for a matrix, a list of them in order for a batch or a sequence.

    Accuracy: ``s`` are Ritz values: never above the true ones but for rounding (``eps s_max``), and below them by what
    ``n_iter`` leaves. ``frobenius_error`` and ``spectral_bound`` are measured on the factors that are returned.

    Raises:
        TensorError: a tensor is empty, no matrix, or holds NaN or infinity; the message has its index.
        UnsupportedDtypeError: a dtype that is none of the four.
        UsageError: an option is out of range.

    Source: Halko, Martinsson & Tropp 2011; Musco & Musco 2015 (block Krylov).
    """
    _check_options(rank, n_iter, oversample, tolerance)
    single = isinstance(tensors, Tensor) and tensors.ndim == 2
    matrices = [tensors] if isinstance(tensors, Tensor) and single else list(tensors)
    _check_matrices(matrices)
    results: dict[int, LowRankSvd] = {}
    for places in _batches(matrices):
        batch, energy, exponents = _scaled(matrices, places)
        tall = batch.shape[-2] > batch.shape[-1]  # bases live on the short side
        found = _factor_batch(batch.mT if tall else batch, energy, rank, n_iter, oversample, tolerance)
        for place, exponent, factors in zip(places, exponents, found, strict=True):
            results[place] = _finished(factors, exponent, tall, vectors)
    ordered = [results[place] for place in range(len(matrices))]
    return ordered[0] if single else ordered


def _check_options(rank: int, n_iter: int, oversample: int, tolerance: float | None) -> None:
    for name, value, least in (("rank", rank, 1), ("n_iter", n_iter, 0), ("oversample", oversample, 0)):
        if type(value) is not int or value < least:
            raise UsageError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    if tolerance is not None and not 0 < tolerance < 1:
        raise UsageError(f"tolerance: expected a number in (0, 1), found {tolerance!r}")


def _check_matrices(matrices: Sequence[Tensor]) -> None:
    for place, matrix in enumerate(matrices):
        if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.numel() == 0:
            found = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
            raise TensorError(f"tensor {place}: expected a matrix with at least one entry, found {found}")
        if matrix.dtype not in WEIGHT_DTYPES:
            raise UnsupportedDtypeError(f"tensor {place}: expected {WEIGHT_DTYPE_NAMES}, found {matrix.dtype}")


def _batches(matrices: Sequence[Tensor]) -> Iterator[list[int]]:
    """Places of matrices that are worked on together: of one shape, type and device, within a budget of memory."""
    groups: dict[object, list[int]] = {}
    for place, matrix in enumerate(matrices):
        groups.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(place)
    for places in groups.values():
        each = matrices[places[0]].numel() * (8 if matrices[places[0]].dtype == torch.float64 else 4)
        size = max(1, _BATCH_BYTES // each)
        yield from (places[begin : begin + size] for begin in range(0, len(places), size))


def _scaled(matrices: Sequence[Tensor], places: Sequence[int]) -> tuple[Tensor, Tensor, list[int]]:
    """Some matrices as a batch in their working type, each times a power of two that keeps squares in range.

    Returns:
        the batch, ``||W||_F^2`` of each of it in float64, and the exponents of what they were divided by.
    """
    dtype = torch.float64 if matrices[places[0]].dtype == torch.float64 else torch.float32
    some = [matrices[place].detach().to(dtype) for place in places]
    batch = some[0][None] if len(some) == 1 else torch.stack(some)
    largest, energy = measure(batch).unbind(1)
    exponents = [scale_exponent(one, dtype) for one in largest.tolist()]
    for place, one in zip(places, largest.tolist(), strict=True):
        if not math.isfinite(one):
            raise TensorError(f"tensor {place}: holds NaN or infinity, expected finite numbers")
    if any(exponents):
        pairs = zip(batch, exponents, strict=True)
        batch = torch.stack([scale_by_power_of_two(matrix, -exponent) for matrix, exponent in pairs])
        energy = measure(batch)[:, 1]
    return batch, energy, exponents


def _finished(found: LowRankSvd, exponent: int, transposed: bool, vectors: bool) -> LowRankSvd:
    """Scaling and transposition undone."""
    scale = math.ldexp(1.0, exponent)
    u, vh = found.u, found.vh
    if transposed and u is not None and vh is not None:
        u, vh = vh.mT.contiguous(), u.mT.contiguous()
    return LowRankSvd(
        u=u if vectors else None,
        s=found.s * scale,
        vh=vh if vectors else None,
        norm=found.norm * scale,
        frobenius_error=found.frobenius_error * scale,
        spectral_bound=found.spectral_bound * scale,
        method=found.method,
    )


def _factor_batch(
    weight: Tensor, energy: Tensor, rank: int, n_iter: int, oversample: int, tolerance: float | None
) -> list[LowRankSvd]:
    """Factor a batch; with a tolerance the rank doubles for those that have not met it, starting from what is found."""
    done: dict[int, LowRankSvd] = {}
    open_places, start = list(range(weight.shape[0])), None
    current = rank if tolerance is None else min(rank, _FIRST_RANK)
    while open_places:
        part = weight if len(open_places) == weight.shape[0] else weight[open_places]
        u, s, vh, method = _triplets(part, current, n_iter, oversample, start)
        counts = _ranks(s, energy[open_places], tolerance)
        last = current >= min(rank, *weight.shape[-2:])
        finished = [last or count is not None for count in counts]
        for index, place in enumerate(open_places):
            if finished[index]:
                kept = slice(0, counts[index] or min(current, s.shape[-1]))
                done[place] = _measured(
                    part[index], u[index, :, kept], s[index, kept], vh[index, kept], float(energy[place]), method
                )
        rest = [index for index, ended in enumerate(finished) if not ended]
        open_places, start = [open_places[index] for index in rest], vh[rest].mT
        current = min(2 * current, rank)
    return [done[place] for place in range(weight.shape[0])]


def _ranks(s: Tensor, energy: Tensor, tolerance: float | None) -> list[int | None]:
    """Fewest triplets that leave at most ``tolerance^2`` of the energy; None where not even all of them do."""
    if tolerance is None:
        return [s.shape[-1]] * s.shape[0]
    left = energy[:, None].to(s.device) - (s * s).cumsum(-1)
    enough = left <= (tolerance**2) * energy[:, None].to(s.device)
    return [int(row.to(torch.int8).argmax()) + 1 if bool(row.any()) else None for row in enough]


def _measured(weight: Tensor, u: Tensor, s: Tensor, vh: Tensor, energy: float, method: str) -> LowRankSvd:
    frobenius = frobenius_error(weight, u, s, vh, energy)
    bound = float(spectral_bound(weight[None], u[None], s[None], vh[None], frobenius)[0])
    return LowRankSvd(u.clone(), s.cpu(), vh.clone(), math.sqrt(energy), frobenius, bound, method)


def _triplets(
    weight: Tensor, rank: int, n_iter: int, oversample: int, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, str]:
    """``rank`` leading triplets of a batch: u (b, m, k), s (b, k) float64, vh (b, k, n), and the method's name."""
    rows, columns = weight.shape[-2:]
    n_min = min(rows, columns)
    width = rank + oversample
    if 2 * width > n_min:
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        kept = min(rank, n_min)
        return u[..., :kept], s[..., :kept].to(torch.float64), vh[..., :kept, :], "svd"
    depth = max(2, min(n_min, _BASIS_COLUMNS) // width)
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    fresh = width - (start.shape[-1] if start is not None else 0)
    omega = torch.randn(columns, fresh, generator=generator, dtype=torch.float64).to(weight.device, weight.dtype)
    omega = omega.expand(weight.shape[0], -1, -1)
    basis = krylov_basis(weight, omega if start is None else torch.cat((start, omega), dim=-1), n_iter, depth)
    projected = weight.mT @ basis  # (b, n, l): its SVD is that of basis^T W, transposed
    right = orthonormalise(projected)
    core = right.mT.to(torch.float64) @ projected.to(torch.float64)
    x, _, yh = torch.linalg.svd(core)
    s, order = _rayleigh_values(core, x, yh)
    kept = order[..., :rank]
    x, y = (torch.take_along_dim(vectors, kept[..., None, :], dim=-1) for vectors in (x, yh.mT))
    return basis @ y.to(basis.dtype), s[..., :rank], (right @ x.to(right.dtype)).mT, "krylov"


def _rayleigh_values(core: Tensor, x: Tensor, yh: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values ``x_i^T C y_i`` from the vectors, falling, and their order.

    LAPACK's iteration tears values apart that lie as near to each other as 100 eps; its vectors are orthonormal to a
    few eps all the same, and the quotients are as good as they are, to second order.
    """
    quotients = ((core @ yh.mT) * x).sum(-2)
    return torch.sort(quotients, dim=-1, descending=True, stable=True)
