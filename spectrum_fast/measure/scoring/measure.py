"""A tensor to its spectrum, and a spectrum to the record that a scan keeps."""

from __future__ import annotations

from torch import Tensor

from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.batched import compute_spectra
from spectrum_fast.measure.spectra.engine import DEFAULT_TOLERANCE, compute_spectrum
from spectrum_fast.measure.spectra.record import Spectrum
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.read.checkpoint.weight_plan import WeightPlan


def spectrum(
    weight: Tensor,
    *,
    criterion: str = "spectrum",
    method: str = "auto",
    precision: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
) -> Spectrum:
    """Score one matrix by its singular values.

    With ``s`` the singular values of ``weight`` (m x n) the default criterion takes
    ``threshold = (q75(s) - q25(s)) / 1.349 * (1 + sqrt(min(m, n) / max(m, n)))`` and
    ``snr = sum(s > threshold) / sum(s <= threshold) / max(s)``.

    Args:
        weight: a matrix in float64, float32, float16 or bfloat16; a vector counts as one row. Never changed.
        criterion: ``spectrum`` (the published rule) or ``mp`` (the true Marchenko-Pastur edge).
        method: ``auto``, ``band`` (Gram, band reduction, slicing) ``svd`` (every singular value by
            LAPACK), or ``rsvd``, an estimate for a quick look (:mod:`spectrum_fast.measure.spectra.rsvd_method`).
        precision: ``auto``, ``float32`` or ``float64``.
        tolerance: relative accuracy wanted of the score; ``auto`` escalates until its error bound meets it.

    Returns:
        The functionals of the spectrum; ``error_bound`` states the relative accuracy of ``snr``.

    Raises:
        TensorError: the tensor is empty, no matrix, or holds NaN or infinity.
        UnsupportedDtypeError: the dtype is none of the four.
        UsageError: an option is out of range.

    Source: arXiv 2406.06623; the engine is described in ARCHITECTURE.md.
    """
    rule = find_criterion(criterion)
    if weight.is_cuda and weight.ndim == 2 and weight.numel() and (method, precision) == ("auto", "auto"):
        # The batched form asks the host nothing between its steps, which pays for one matrix, too.
        found = compute_spectra([weight], rule, tolerance=tolerance)[0]
        if isinstance(found, Exception):
            raise found
        return found
    return compute_spectrum(weight, rule, method=method, precision=precision, tolerance=tolerance)


def score_weight(plan: WeightPlan, shape: tuple[int, ...], found: Spectrum) -> ModuleScore:
    """The line of a scan for one weight.

    Args:
        plan: where the weight came from; names, storage type and note are taken from it.
        shape: of the weight as it was scored, which for packed codes is not the stored shape.
        found: its spectrum.
    """
    return ModuleScore(
        name=plan.name,
        type=module_type(plan.name),
        parameter=plan.parameter,
        shape=shape,
        dtype=plan.main.dtype,
        snr=found.snr,
        noise_free=found.noise_free,
        s_max=found.s_max,
        s_min=found.s_min,
        q25=found.q25,
        q50=found.q50,
        q75=found.q75,
        threshold=found.threshold,
        signal_sum=found.signal_sum,
        noise_sum=found.noise_sum,
        n_signal=found.n_signal,
        n_noise=found.n_noise,
        error_bound=found.error_bound,
        method=found.method,
        frobenius_residual=found.frobenius_residual,
        histogram=found.histogram,
        parts=plan.parts,
        parameter_shape=plan.whole_shape,
        note="; ".join(part for part in (plan.note, found.reason) if part),
    )
