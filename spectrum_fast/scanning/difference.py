"""Two checkpoints scanned as one: each weight minus that of the same name in a base, or a base plus its adapter.

Both are planned by the same rules, whatever their formats, and what both have is scored as one
(:mod:`spectrum_fast.scanning.combination`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.records import ScanFailure, SkippedTensor
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning.combination import combine, shapes_differ
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.results import failed
from spectrum_fast.words import list_some


def plan_difference(
    checkpoint: Checkpoint, planning: Callable[..., ScanPlan], *, angles: bool = False, **patterns: Sequence[str]
) -> ScanPlan:
    """Plan a checkpoint minus its base.

    What one of them lacks is left out under its name, with that reason; what both have in different shapes, or the base
    in a form that is not decoded, is a failure. Of tensors that are one parameter of the model one is scored, unless
    the base holds two; equal bytes under two names say nothing about the base's, so both are scored.

    Args:
        checkpoint: opened, its base too.
        planning: plans one of them (:func:`spectrum_fast.scanning.plan.plan_scan`).
        angles: those between each difference and its base are wanted, too.
        patterns: ``include`` and ``exclude``.

    Raises:
        UsageError: they have no module in common.
    """
    base = checkpoint.base
    assert base is not None  # noqa: S101
    found = planning(checkpoint, **patterns)
    whole = planning(checkpoint, known_ties={}, **patterns) if found.ties or found.copies else found
    base_found = planning(base, known_ties={})
    known = {weight.name: weight for weight in base_found.weights}
    refused = {failure.name: failure for failure in base_found.refused}
    base_ties = planning(base).ties if any(copy in known for copy in found.ties) else {}
    ties = {copy: own for copy, own in found.ties.items() if copy not in known or base_ties.get(copy) == own}
    weights: list[WeightPlan] = []
    failures: list[ScanFailure] = list(found.refused)
    skipped: list[SkippedTensor] = list(found.skipped)
    for weight in whole.weights:
        other, failure = known.get(weight.name), refused.get(weight.name)
        if weight.name in ties:
            continue
        if failure is not None:
            failures.append(replace(failure, message=f"its base: {failure.message}"))
        elif other is None:
            skipped.append(SkippedTensor(weight.name, f"not in the base, {base.name}"))
        elif (failure := _mismatch(weight, other)) is not None:
            failures.append(failure)
        else:
            weights.append(combine(weight, other, angles=angles))
    if not weights and not failures:
        raise UsageError(
            f"{checkpoint.name} minus {base.name}: expected modules of the same names, found none; the first have "
            f"{_some(whole.weights)}, the second {_some(base_found.weights)}: is it the base of this model?"
        )
    names = {weight.name for weight in whole.weights} | {one.name for one in (*skipped, *failures)}
    skipped += [SkippedTensor(name, f"in the base alone, {base.name}") for name in known if name not in names]
    return ScanPlan(
        weights=tuple(weights),
        refused=tuple(failures),
        skipped=tuple(skipped),
        ties=ties,
        copies=(),
    )


def plan_sum(checkpoint: Checkpoint, planning: Callable[..., ScanPlan], **patterns: Sequence[str]) -> ScanPlan:
    """Plan the base of an adapter with what the adapter adds; all else of the base as it is.

    Args:
        checkpoint: the adapter, opened, its base too.
        planning: plans one of them.
        patterns: ``include`` and ``exclude``, of modules of the base.

    Raises:
        UsageError: the adapter changes no module of this base.
    """
    base = checkpoint.base
    assert base is not None  # noqa: S101
    added = planning(checkpoint)
    found = planning(base, **patterns)
    known = {weight.name: weight for weight in added.weights}
    shared = {*found.ties, *found.ties.values(), *(name for plan, own in found.copies for name in (plan.name, own))}
    if shared & known.keys():
        found = planning(base, known_ties={}, **patterns)
    names = {weight.name for weight in found.weights} | {one.name for one in (*found.skipped, *found.refused)}
    if names.isdisjoint(known):
        raise UsageError(
            f"{checkpoint.name} plus {base.name}: expected an adapter of modules of the second, found "
            f"{_some(added.weights)}; that has {_some(found.weights)}: is it the base of this adapter?"
        )
    failures = [
        failed(weight, "base", f"an adapter of a module that {base.name} lacks")
        for weight in added.weights
        if weight.name not in names
    ]
    weights: list[WeightPlan] = []
    for weight in found.weights:
        other = known.get(weight.name)
        if other is None:
            weights.append(weight)
        elif (failure := _mismatch(other, weight)) is not None:
            failures.append(failure)
        else:
            weights.append(combine(weight, other, add=True))
    return replace(
        found,
        weights=tuple(weights),
        refused=(*found.refused, *added.refused, *failures),
        skipped=(*found.skipped, *(one for one in added.skipped if one.name not in names)),
    )


def _mismatch(weight: WeightPlan, base: WeightPlan) -> ScanFailure | None:
    """The failure of a weight whose shape is not that of its base, as far as the headers alone say it."""
    shape, expected = weight.matrix_shape, base.matrix_shape
    if shape is None or expected is None or shape == expected or weight.part is not None or base.part is not None:
        return None
    return failed(weight, "shape", shapes_differ(shape, expected))


def _some(weights: Sequence[WeightPlan]) -> str:
    return list_some([weight.name for weight in weights], 3) if weights else "none"
