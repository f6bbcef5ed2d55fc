"""A weight of two: a tuned one minus its base, or a base plus its adapter, a weight like any other to what follows.

Its plan reads the tensors of both, and its decoder subtracts or adds. How the leading singular subspaces of a
difference lie to those of its base is asked here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.spectra.lowrank import LowRankSvd, svd_lowrank
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import LoadedWeight

_OTHER = "other"
"""Role of the second weight among what is read, and the first word of those of its companions."""
MOST_DIRECTIONS = 32
"""Of each subspace that is compared. A hundred would cost as much as the scan itself."""
_ROUNDING = 32
"""Units in the last place of the largest value below which one is zero, and its vectors are anything."""


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


@dataclass(frozen=True)
class SubspaceOverlap:
    """Products of the leading singular vectors of a base and of the difference, falling by singular value.

    Attributes:
        left: ``U_base^T U_difference``, (k, k) float64.
        right: ``V_base^T V_difference``.
    """

    left: Tensor
    right: Tensor

    def angles(self, rank: int) -> dict[str, float]:
        """Cosines of the principal angles between the subspaces of the ``rank`` leading vectors of each.

        Args:
            rank: of the difference; beyond what is known here the subspaces of all that is known are compared.

        Returns:
            By the names of the fields of a record; nothing where the rank is zero, for there is no subspace then.
        """
        found: dict[str, float] = {}
        for side, products in (("left", self.left), ("right", self.right)):
            cosines = torch.linalg.svdvals(products[:rank, :rank]).clamp(max=1.0)
            if len(cosines):
                found |= {f"{side}_cosine": float(cosines[0]), f"{side}_overlap": float((cosines**2).mean())}
        return found


def overlap_with_base(loaded: LoadedWeight, device: str | torch.device = "cpu") -> SubspaceOverlap | None:
    """Of a weight whose plan asks for it, by randomized SVDs of base and difference on a device; else None.

    None, too, where the matrix is read in blocks, or where one of the two is zero or not finite.
    """
    decoder = loaded.plan.decoder
    if not isinstance(decoder, Combination) or not decoder.angles or not isinstance(loaded.main, Tensor):
        return None
    there = loaded.on(device)
    own, base = decoder.pair(cast(Tensor, there.main), there.companions)
    try:
        found = cast("list[LowRankSvd]", svd_lowrank([base.to(own.dtype), own - base], MOST_DIRECTIONS))
    except (TensorError, torch.linalg.LinAlgError):  # pyright: ignore[reportPrivateImportUsage]
        return None  # the score of the same numbers says what is wrong with them
    known = min(int((one.s > one.s[0] * _ROUNDING * torch.finfo(own.dtype).eps).sum()) for one in found)
    (u_base, vh_base), (u, vh) = ((cast(Tensor, one.u), cast(Tensor, one.vh)) for one in found)
    left, right = u_base.double().mT @ u.double(), vh_base.double() @ vh.double().mT
    return SubspaceOverlap(left[:known, :known].cpu(), right[:known, :known].cpu()) if known else None
