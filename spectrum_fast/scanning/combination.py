"""A weight of two: a tuned one minus its base, or a base plus its adapter, a weight like any other to what follows.

Its plan reads the tensors of both, and its decoder subtracts or adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.read.formats.weight_plan import WeightPlan

_OTHER = "other"
"""Role of the second weight among what is read, and the first word of those of its companions."""


@dataclass(frozen=True)
class Combination:
    """Decoder of two weights: both decoded, subtracted or added in float32 (float64 where one is), rounded once.

    Attributes:
        own: plan of the first.
        other: plan of the second.
        add: the sum, else the first minus the second.
        angles: those between the difference and the second are wanted, too.
    """

    own: WeightPlan
    other: WeightPlan
    add: bool = False
    angles: bool = False

    def __call__(self, main: Tensor, **companions: Tensor) -> Tensor:
        """The difference, or the sum.

        Raises:
            TensorError: the two have different shapes, which codes may tell only now.
            UnsupportedDtypeError: companions contradict the codes of one of them.
        """
        own, other = self.pair(main, companions)
        return own + other if self.add else own - other

    def pair(self, main: Tensor, companions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both weights, decoded, the first in the type that they are combined in; raises like a call."""
        found = decode_weight(self.own, main, {role: companions[role] for role in self.own.companions})
        others = {role: companions[f"{_OTHER} {role}"] for role in self.other.companions}
        other = decode_weight(self.other, companions[_OTHER], others)
        both = [one.whole().float() if isinstance(one, FactoredMatrix) else one for one in (found, other)]
        if both[0].shape != both[1].shape:
            raise TensorError(shapes_differ(*(tuple(one.shape) for one in both)))
        working = torch.float64 if any(one.dtype == torch.float64 for one in both) else torch.float32
        return both[0].to(working), both[1]


def combine(plan: WeightPlan, other: WeightPlan, *, add: bool = False, angles: bool = False) -> WeightPlan:
    """The plan of a weight minus (or plus) another one."""
    companions = {f"{_OTHER} {role}": ref for role, ref in other.companions.items()}
    layouts = [one.layout or one.main.dtype for one in (plan, other)]
    made = replace(
        plan,
        companions={**plan.companions, _OTHER: other.main, **companions},
        decoder=Combination(plan, other, add, angles),
        layout=f" {'plus' if add else 'minus'} ".join(layouts),
        shape=plan.matrix_shape if plan.part is None else None,
        part=None,
        in_factors=False,
    )
    is_plain = all(one.decoder is None and one.part is None for one in (plan, other))
    return replace(made, entrywise=is_plain and plan.main.shape == other.main.shape)


def shapes_differ(own: tuple[int, ...], base: tuple[int, ...]) -> str:
    """The words of the error."""
    return f"expected the shape of its base, {base}, found {own}; exclude it, or give the model it was trained from"
