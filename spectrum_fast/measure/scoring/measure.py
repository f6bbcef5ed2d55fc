"""A tensor to its spectrum, and a spectrum to the record that a scan keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.scoring.criteria import CALIBRATED_SIDE, find_criterion
from spectrum_fast.measure.scoring.options import SpectrumOptions
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.engine import compute_spectrum
from spectrum_fast.measure.spectra.record import Spectrum
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


def score_weight(plan: WeightPlan, shape: tuple[int, ...], found: Spectrum) -> ModuleScore:
    """The line of a scan for one weight.

    Args:
        plan: where the weight came from; names, storage type and note are taken from it.
        shape: of the weight as it was scored, which for packed codes is not the stored shape.
        found: its spectrum.
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
        note="; ".join(note for note in notes if note),
    )
