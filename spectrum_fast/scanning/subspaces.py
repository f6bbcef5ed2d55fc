"""How the leading singular subspaces of a difference lie to those of the base that it was taken from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.spectra.lowrank import LowRankSvd, svd_lowrank
from spectrum_fast.read.stream import LoadedWeight
from spectrum_fast.scanning.combination import Combination

MOST_DIRECTIONS = 32
"""Of each subspace that is compared. A hundred would cost as much as the scan itself."""
_ROUNDING = 32
"""Units in the last place of the largest value below which one is zero, and its vectors are anything."""


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
