"""One score for a parameter that is scored in parts: experts fused in one tensor, projections fused in one matrix.

A trainer frees or freezes a whole parameter, so a fused parameter competes as one module. Its score is that of the
matrix with the parts ``W_1, W_2, ...`` along its diagonal, which is what the parameter does (an expert is applied to
its own tokens, a projection has its own output) and whose singular values are those of all parts together, each part
keeping its own noise threshold::

    signal_sum = sum_i signal_sum_i,  noise_sum = sum_i noise_sum_i,  s_max = max_i s_max_i
    snr = signal_sum / noise_sum / s_max                                 (criterion ``spectrum``)
    snr = signal_sum / noise_sum * min_i (threshold_i / s_max_i)         (criterion ``mp``)

Criteria that are one number of a spectrum take the mean of the parts' numbers, as PEFT does of condition numbers.

A mean of the parts' scores would be infinite with one noise-free part and would let a part of a few tiny values speak
as loudly as the largest one. Here a noise-free part adds signal and no noise, an all-zero one (a dead expert) adds
nothing, and the whole is noise-free only if all parts with any value are.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from spectrum_fast.errors import TensorError, UsageError
from spectrum_fast.measure.scoring.criteria import NO_BOUND, QuantityCriterion, find_criterion
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.record import Criterion
from spectrum_fast.read.checkpoint.naming import module_name, module_type

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan

Fused: TypeAlias = Literal["parameter", "parts"]
FUSED: tuple[str, ...] = get_args(Fused)
"""How fused parameters compete: ``parameter`` as one module with the score above, ``parts`` each part by itself."""

_NEEDED = ("signal_sum", "noise_sum", "s_max", "s_min", "threshold", "n_signal", "n_noise")


def competing_modules(record: Scan, fused: str = "parameter") -> tuple[ModuleScore, ...]:
    """The modules of a scan, with the parts of a fused parameter replaced by the parameter, where the first part stood.

    Parameters of which a part has no score (a failure) are left out, for a part of the sum is no score of the whole.

    Raises:
        UsageError: ``fused`` is another word, or parts of a scan file lack the sums that the score is made of.
    """
    if fused not in FUSED:
        raise UsageError(f"unknown fused {fused!r}: expected one of {', '.join(FUSED)}")
    if fused == "parts":
        return record.modules
    merged = {parts[0].name: merge_parts(parts, record.criterion) for parts in _scored_whole(record)}
    found = (merged.get(module.name) if module.is_part else module for module in record.modules)
    return tuple(module for module in found if module is not None)


def fused_modules(record: Scan) -> tuple[ModuleScore, ...]:
    """The scores of the fused parameters alone; those whose parts do not say enough are left out."""
    result = []
    for parts in _scored_whole(record):
        with suppress(TensorError, UsageError):
            result.append(merge_parts(parts, record.criterion))
    return tuple(result)


def _scored_whole(record: Scan) -> list[list[ModuleScore]]:
    """The parts of each parameter of which no part has failed."""
    failed = {failure.parameter for failure in record.failures}
    return [parts for parameter, parts in parts_by_parameter(record.modules).items() if parameter not in failed]


def parts_by_parameter(modules: Iterable[ModuleScore]) -> dict[str, list[ModuleScore]]:
    """Parameter name -> its scored parts, in scan order; parameters that are scored whole are not in it."""
    groups: dict[str, list[ModuleScore]] = {}
    for module in modules:
        if module.is_part and module.parameter is not None:
            groups.setdefault(module.parameter, []).append(module)
    return groups


def merge_parts(parts: list[ModuleScore], criterion: str) -> ModuleScore:
    """The score of the parameter that these are all parts of; see the module's docstring.

    Its ``error_bound`` is ``(1 + b)^3 - 1``, b the largest of the parts: each of signal sum, noise sum and ``s_max``
    (with the threshold, where the criterion has it) is within the largest bound of a part.

    Raises:
        UsageError: a part lacks a sum (a scan file that another program wrote), or the criterion is not known.
    """
    parameter = parts[0].parameter or parts[0].name
    lacking = next((part for part in parts if any(getattr(part, key) is None for key in _NEEDED)), None)
    if lacking is not None:
        raise UsageError(
            f"{parameter}: expected signal and noise sums of all its parts, found none for {lacking.name}; scan again, "
            "or let the parts compete (fused 'parts')"
        )
    signal_sum, noise_sum = (sum(getattr(part, key) for part in parts) for key in ("signal_sum", "noise_sum"))
    noise_free = noise_sum == 0.0 and any(part.noise_free for part in parts)
    name = module_name(parameter)
    rule = find_criterion(criterion)
    score: dict[str, Any] = {
        "snr": None if noise_free else _score(parts, signal_sum, noise_sum, rule),
        "noise_free": noise_free,
        "error_bound": (1 + min(max(part.error_bound or 0.0 for part in parts), NO_BOUND)) ** 3 - 1,
    }
    if isinstance(rule, QuantityCriterion):
        score = rule.score_of(parts)
    return ModuleScore(
        name=name,
        type=module_type(name),
        parameter=parameter,
        shape=parts[0].parameter_shape,
        dtype=parts[0].dtype,
        **score,
        s_max=max(part.s_max or 0.0 for part in parts),
        s_min=min(part.s_min or 0.0 for part in parts),
        signal_sum=signal_sum,
        noise_sum=noise_sum,
        n_signal=sum(part.n_signal or 0 for part in parts),
        n_noise=sum(part.n_noise or 0 for part in parts),
        method="fused",
        note=_note(parts),
    )


def _score(parts: list[ModuleScore], signal_sum: float, noise_sum: float, rule: Criterion) -> float:
    """The smallest score over the parts' own ``s_max`` and threshold; 0 where nothing lies above a threshold."""
    if noise_sum == 0.0:  # every part is dead
        return 0.0
    scores = [rule.score(signal_sum, noise_sum, part.s_max, part.threshold or 0.0) for part in parts if part.s_max]
    return min((score for score in scores if score > 0), default=0.0)


def _note(parts: list[ModuleScore]) -> str:
    count = parts[0].parts or len(parts)
    note = f"{len(parts)} parts" if len(parts) == count else f"{len(parts)} of {count} parts, the others left out"
    noise_free = sum(part.noise_free for part in parts)
    return note + (f", {noise_free} of them noise-free" if noise_free else "")
