"""Two checkpoints scanned as one: each weight minus that of the same name in a base.

Both are planned by the same rules, whatever their formats, and a weight of the two is a weight like any other to what
follows: its plan reads the tensors of both, and its decoder takes one from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError, UsageError
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.scoring.records import ScanFailure, SkippedTensor
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.storage.files import list_some
from spectrum_fast.scanning.plan import ScanPlan

_BASE = "base"
"""Role of the base's weight among what is read, and the first word of those of its companions."""


@dataclass(frozen=True)
class Difference:
    """Decoder of a weight minus another one: both decoded, subtracted in float32 (float64 where one is), rounded once.

    Attributes:
        own: plan of the weight.
        base: plan of what is taken from it.
    """

    own: WeightPlan
    base: WeightPlan

    def __call__(self, main: Tensor, **companions: Tensor) -> Tensor:
        """The difference.

        Raises:
            TensorError: the two have different shapes, which codes may tell only now.
            UnsupportedDtypeError: companions contradict the codes of one of them.
        """
        own, base = self.parts(main, companions)
        if own.shape != base.shape:
            raise TensorError(_shapes(tuple(own.shape), tuple(base.shape)))
        working = torch.float64 if torch.float64 in (own.dtype, base.dtype) else torch.float32
        return torch.sub(own.to(working), base)

    def parts(self, main: Tensor, companions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both weights, decoded."""
        own = decode_weight(self.own, main, {role: companions[role] for role in self.own.companions})
        others = {role: companions[f"{_BASE} {role}"] for role in self.base.companions}
        return own, decode_weight(self.base, companions[_BASE], others)


def subtract(plan: WeightPlan, base: WeightPlan) -> WeightPlan:
    """The plan of a weight minus another one."""
    companions = {f"{_BASE} {role}": ref for role, ref in base.companions.items()}
    made = replace(
        plan,
        companions={**plan.companions, _BASE: base.main, **companions},
        decoder=Difference(plan, base),
        layout=f"{plan.layout or plan.main.dtype} minus {base.layout or base.main.dtype}",
        shape=plan.matrix_shape if plan.part is None else None,
        part=None,
    )
    is_plain = all(one.decoder is None and one.part is None for one in (plan, base))
    return replace(made, entrywise=is_plain and plan.main.shape == base.main.shape)


def plan_difference(checkpoint: Checkpoint, planning: Callable[..., ScanPlan], **patterns: Sequence[str]) -> ScanPlan:
    """Plan a checkpoint minus its base.

    What one of them lacks is left out under its name, with that reason; what both have in different shapes, or the base
    in a form that is not decoded, is a failure. Of tensors that are one parameter of the model one is scored, unless
    the base holds two; equal bytes under two names say nothing about the base's, so both are scored.

    Args:
        checkpoint: opened, its base too.
        planning: plans one of them (:func:`spectrum_fast.scanning.plan.plan_scan`).
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
        elif _differ(weight, other):
            failures.append(_of_other_shape(weight, other))
        else:
            weights.append(subtract(weight, other))
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
        total_bytes=sum(weight.nbytes for weight in weights),
    )


def _differ(weight: WeightPlan, other: WeightPlan) -> bool:
    """Whether the headers alone say that the shapes differ."""
    shapes = weight.matrix_shape, other.matrix_shape
    return None not in shapes and weight.part is None and other.part is None and shapes[0] != shapes[1]


def _of_other_shape(weight: WeightPlan, other: WeightPlan) -> ScanFailure:
    return ScanFailure(
        name=weight.name,
        kind="shape",
        message=f"{weight.main.name} in {weight.main.file.name}: "
        + _shapes(weight.matrix_shape or (), other.matrix_shape or ()),
        shape=weight.main.shape,
        dtype=weight.main.dtype,
        parameter=weight.parameter if weight.parts is not None else None,
    )


def _shapes(own: tuple[int, ...], base: tuple[int, ...]) -> str:
    return f"expected the shape of its base, {base}, found {own}; exclude it, or give the model it was trained from"


def _some(weights: Sequence[WeightPlan]) -> str:
    return list_some([weight.name for weight in weights], 3) if weights else "none"
