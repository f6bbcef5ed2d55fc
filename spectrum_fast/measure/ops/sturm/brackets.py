"""Brackets of order statistics, narrowed by counts: what every backend without a kernel of its own does."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_INTERIOR = 3
"""Points that split a bracket."""
_MOST_ROUNDS = 200


def narrow_by(
    below: Callable[[Tensor], Tensor], lo: Tensor, hi: Tensor, ranks: Tensor, enough: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`spectrum_fast.measure.ops.sturm.narrow`; N is ``below``, (m, s) float64 -> (m, s) int64.

    Brackets that several ranks share are split once.
    """
    fractions = torch.arange(1, _INTERIOR + 1, dtype=torch.float64, device=lo.device) / (_INTERIOR + 1)
    none = torch.zeros_like(lo[:, :1], dtype=torch.bool)
    ends = lo.new_full((len(lo), 1), math.inf)
    for _ in range(_MOST_ROUNDS):
        wide = (hi - lo > enough) & (torch.nextafter(lo, hi) < hi)
        if not bool(wide.any()):
            break
        shared = (lo[:, 1:] == lo[:, :-1]) & (hi[:, 1:] == hi[:, :-1]) & wide[:, :-1]
        split = wide & ~torch.cat([none, shared], dim=1)
        points = lo[..., None] + (hi - lo)[..., None] * fractions
        points = torch.where(split[..., None], points, math.inf).flatten(1).sort(dim=1).values
        # Rounding can make two counts one apart come in the wrong order; N itself never decreases.
        counts = torch.cummax(below(points), dim=1).values
        passed = torch.searchsorted(counts, ranks.expand(len(lo), -1).contiguous(), right=True)
        edges = torch.cat([-ends, points, ends], dim=1)
        under, over = edges.gather(1, passed), edges.gather(1, passed + 1)
        lo, hi = (
            torch.where((lo < under) & (under < hi), under, lo),
            torch.where((lo < over) & (over < hi), over, hi),
        )
    return lo, hi
