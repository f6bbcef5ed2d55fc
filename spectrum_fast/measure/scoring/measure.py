"""A tensor to its spectrum, and a spectrum to the record that a scan keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.scoring.criteria import CALIBRATED_SIDE, find_criterion
from spectrum_fast.measure.scoring.options import SpectrumOptions
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.scoring.stored_spectra import as_stored
from spectrum_fast.measure.spectra.engine import as_matrix, compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.options import DEFAULT_TOLERANCE, Method, Precision
from spectrum_fast.measure.spectra.record import SingularValues, Spectrum
from spectrum_fast.options import takes_options
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.read.formats.weight_plan import WeightPlan


@takes_options(SpectrumOptions)
def spectrum(weight: Tensor | npt.NDArray[Any], options: SpectrumOptions) -> Spectrum:
    """Score one matrix by its singular values.

    With ``s`` the singular values of ``weight`` (m x n) the default criterion takes
    ``threshold = (q75(s) - q25(s)) / 1.349 * (1 + sqrt(min(m, n) / max(m, n)))`` and
    ``snr = sum(s > threshold) / sum(s <= threshold) / max(s)``.

    Args:
        weight: a matrix in float64, float32, float16 or bfloat16, a tensor or a NumPy array; a vector counts as one
            row. Never changed.
        options: keywords, each of :class:`spectrum_fast.measure.scoring.options.SpectrumOptions`.

    Returns:
        The functionals of the spectrum; ``error_bound`` states the relative accuracy of ``snr``, ``errors`` the
        absolute one of what it is made of.

    Raises:
        TensorError: the tensor is empty, no matrix, or holds NaN or infinity.
        UnsupportedDtypeError: the dtype is none of the four.
        UsageError: an option is out of range.

    Source: arXiv 2406.06623; the engine is described in ARCHITECTURE.md.
    """
    matrix, rule = _as_tensor(weight), find_criterion(options.criterion)
    return compute_spectrum(
        matrix, rule, method=options.method, precision=options.precision, tolerance=options.tolerance
    )


@overload
def singular_values(
    weights: Sequence[Tensor | npt.NDArray[Any]],
    *,
    method: Method = "auto",
    precision: Precision = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
) -> list[SingularValues]: ...


@overload
def singular_values(
    weights: Tensor | npt.NDArray[Any],
    *,
    method: Method = "auto",
    precision: Precision = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
) -> SingularValues | list[SingularValues]: ...


def singular_values(
    weights: Tensor | npt.NDArray[Any] | Sequence[Tensor | npt.NDArray[Any]],
    *,
    method: Method = "auto",
    precision: Precision = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
) -> SingularValues | list[SingularValues]:
    """All singular values of a matrix, or of several, each with a bound on its error.

    Gram matrix and band as for a score, then the eigenvalues of the band; sides up to 192 and what float32 and float64
    squares do not serve by LAPACK's float64 SVD.

    >>> singular_values(torch.diag(torch.tensor([3.0, 1.0, 2.0]))).values.round(6)
    array([3., 2., 1.])

    Args:
        weights: a matrix as for :func:`spectrum`; a batch (m, r, c); or a list of matrices of any shapes, those of one
            shape together on a GPU.
        method: ``auto``, ``band`` or ``svd``, as for :func:`spectrum`.
        precision: ``auto`` is as accurate as a score needs it (an absolute error of about 1e-6 of the root mean square,
            more for the smallest); ``float64`` squares in float64, to 1e-8 of it; ``svd`` in float64 is LAPACK's.
        tolerance: of the score, beyond which ``auto`` goes on to float64.

    Returns:
        ``values`` (float64, descending) and absolute ``bounds``; a list of these for a batch or a list.

    Raises:
        TensorError: a matrix is empty, none, or holds NaN or infinity.
        UnsupportedDtypeError: a dtype is none of the four.
        UsageError: an argument is out of range.
    """
    several = not isinstance(weights, (Tensor, np.ndarray)) or weights.ndim == 3
    matrices = [as_matrix(_as_tensor(one)) for one in (weights if several else [weights])]
    alike: dict[Any, list[int]] = {}
    for place, one in enumerate(matrices):
        alike.setdefault((one.shape, one.dtype, one.device), []).append(place)
    found: dict[int, SingularValues] = {}
    for places in alike.values():
        batch, rule = [matrices[place] for place in places], find_criterion("spectrum")
        spectra = compute_spectra(batch, rule, method=method, precision=precision, tolerance=tolerance, all_values=True)
        for place, one in zip(places, spectra, strict=True):
            if isinstance(one, Exception):
                raise one
            if one.singular_values is None:
                raise TensorError("has no singular values that can be told from a fault of a kernel; please report it")
            found[place] = one.singular_values
    return [found[place] for place in range(len(matrices))] if several else found[0]


def _as_tensor(weight: Any) -> Tensor:
    """A tensor as it is, an array as a tensor of the same values.

    Raises:
        TensorError: it is neither, or an array of a type that torch does not have.
    """
    if isinstance(weight, Tensor):
        return weight
    if not isinstance(weight, np.ndarray):
        raise TensorError(f"expected a torch tensor or a NumPy array, found {type(weight).__name__}")
    try:
        return torch.from_numpy(np.require(weight, requirements=["C", "W", "A"]))
    except TypeError as cause:
        raise TensorError(f"expected an array of floating-point numbers, found one of {weight.dtype}") from cause


def score_weight(plan: WeightPlan, shape: tuple[int, ...], found: Spectrum, digest: str = "") -> ModuleScore:
    """The line of a scan for one weight.

    Args:
        plan: where the weight came from; names, storage type and note are taken from it.
        shape: of the weight as it was scored, which for packed codes is not the stored shape.
        found: its spectrum.
        digest: of its stored bytes; empty where not known.
    """
    notes = [plan.note, found.reason]
    if found.criterion == "mp" and min(found.shape) < CALIBRATED_SIDE:
        notes.append(f"short side below {CALIBRATED_SIDE}: up to 8 % of pure noise lies above the mp edge")
    return ModuleScore(
        name=plan.name,
        type=module_type(plan.name),
        parameter=plan.parameter,
        shape=shape,
        dtype=plan.main.dtype,
        **found.summary(),
        parts=plan.parts,
        parameter_shape=plan.whole_shape,
        digest=digest or None,
        singular_values=None if found.singular_values is None else as_stored(found.singular_values),
        note="; ".join(note for note in notes if note),
    )
