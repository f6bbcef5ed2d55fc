"""What counts tell of the spectra of a batch: brackets of order statistics, and a histogram for nothing extra.

``N(t)``, the number of singular values below ``t``, is a Sturm count at ``t^2``. Order statistics come from
multisection: brackets are split at interior points, those of a matrix together; on a GPU those of all matrices.

Source: Parlett, The Symmetric Eigenvalue Problem, ch. 3 (slicing).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spectrum_fast.measure.ops.sturm import count_below, log_abs_det, narrow, prepare
from spectrum_fast.measure.spectra.arrays import (
    Array,
    ascending,
    columns,
    constants,
    functions_of,
    in_form_of,
    pick,
    places_in,
    steps,
    tensor_of,
)
from spectrum_fast.measure.spectra.rounding import Rounding
from spectrum_fast.measure.spectra.schedule import Schedule

_FEW = 16
"""Sums over no more values than this are bounded by the error of each one, not by the mean error."""


class Slices:
    """Counts and log-determinants of a batch of bands, in terms of singular values.

    Args:
        bands: (m, n, b + 1) float64, finite; eigenvalues are squared singular values.
    """

    def __init__(self, bands: Tensor) -> None:
        self._bands = prepare(bands)

    def below(self, points: Array) -> Array:
        """How many singular values lie below each point: (m, s) float64 at least 0 -> (m, s) float64."""
        return in_form_of(points, count_below(self._bands, tensor_of(points * points)).to(torch.float64))

    def narrow(self, lo: Array, hi: Array, ranks: Array, enough: Array) -> tuple[Array, Array]:
        """Brackets of order statistics, narrowed; see :func:`spectrum_fast.measure.ops.sturm.narrow`."""
        wanted = tensor_of(ranks).to(torch.int64)
        found = narrow(self._bands, tensor_of(lo), tensor_of(hi), wanted, tensor_of(enough))
        return in_form_of(lo, found[0]), in_form_of(lo, found[1])

    def log_abs_det(self, shifts: Array, wanted: Array) -> Array:
        """``sum_i log |s_i^2 - z|``: (m, s) complex128 with Im z >= 0 -> (m, s) float64; 0 where not wanted."""
        return in_form_of(shifts, log_abs_det(self._bands, tensor_of(shifts), tensor_of(wanted)))


@dataclass(frozen=True)
class CountTable:
    """``N(t)`` of each matrix at the points asked so far.

    Attributes:
        points: (m, p) ascending.
        counts: (m, p) ``N`` there, non-decreasing, float64.
        size: number of singular values of each matrix.
    """

    points: Array
    counts: Array
    size: int

    @classmethod
    def of(cls, points: Array, counts: Array, size: int) -> CountTable:
        """Of what was counted.

        Both are sorted, each by itself: rounding can make two counts one apart come in the wrong order, which that
        mends, and no count is then farther from the true one than the worst was.
        """
        return cls(ascending(points), ascending(counts), size)

    def with_counts(self, points: Array, counts: Array) -> CountTable:
        """The table with more points in it."""
        xp = functions_of(points)
        points, counts = xp.concatenate([self.points, points], 1), xp.concatenate([self.counts, counts], 1)
        return CountTable.of(points, counts, self.size)

    def below(self, t: Array) -> Array:
        """``N(t)`` for t (m, s) that are points of the table."""
        return pick(self.counts, places_in(self.points, t).clip(None, self.points.shape[1] - 1))

    def bracket(self, ranks: Array) -> tuple[Array, Array]:
        """Points lo, hi (m, k) with ``N(lo) <= rank < N(hi)`` for ranks (k,), from 0."""
        xp = functions_of(ranks)
        above = places_in(self.counts, xp.broadcast_to(ranks, (self.counts.shape[0], len(ranks))), right=True)
        lo = pick(self.points, (above - 1).clip(0))
        return xp.where(above > 0, lo, 0.0), pick(self.points, above.clip(None, self.points.shape[1] - 1))

    def cells(self, values: Array, counts: Array) -> tuple[Array, Array, Array]:
        """Lower and upper edges and numbers of values (m, 1, c): of its cells, below its first point, and of others.

        Args:
            values: (m, r) of other values, each a cell of its own.
            counts: (m, r) how often each is there.
        """
        concatenate, begin = functions_of(values).concatenate, self.points[:, :1]
        lower = concatenate([0.0 * begin, self.points[:, :-1], values], 1)
        upper = concatenate([self.points, values], 1)
        inside = concatenate([self.counts[:, :1], self._weights, counts], 1)
        return lower[:, None], upper[:, None], inside[:, None]

    def two_values(self, t: Array, squares: Array) -> tuple[Array, Array]:
        """A value below each t (m,) and one above, and how often (m, 2), typical of those there.

        Together they are as many as there are, with ``squares`` (m,) for the sum of their squares.
        """
        xp, t = functions_of(t), t[:, None]
        below = self.below(t)
        centres = 0.5 * (self.points[:, 1:] + self.points[:, :-1])
        weights, is_below = self._weights * (centres * centres), centres < t
        sums = columns(xp.where(is_below, weights, 0.0).sum(1), xp.where(is_below, 0.0, weights).sum(1))
        counts = xp.concatenate([below, self.size - below], 1)
        values = xp.sqrt(sums / counts.clip(1.0))
        return values * xp.sqrt(squares / sums.sum(1).clip(sys.float_info.min))[:, None], counts

    def inside(self, a: Array, b: Array) -> Array:
        """How many values each cell holds, of those that lie in [a, b] (both (m, i)); (m, i, p - 1) float64."""
        cells = (self.points[:, None, :-1] >= a[..., None]) & (self.points[:, None, 1:] <= b[..., None])
        return functions_of(a).where(cells, self._weights[:, None], 0.0)

    def least_sums(self, inside: Array) -> Array:
        """Lower bounds on sums of values (m, i), from how many each cell holds."""
        return (inside * self.points[:, None, :-1]).sum(-1)

    def rounding_errors(self, inside: Array, rounding: Rounding) -> Array:
        """Sums of the uncertainty of values (m, i), largest at the lower edge of each cell, from how many it holds."""
        xp, lower = functions_of(inside), self.points[:, :-1]
        each = (inside * rounding.uncertainty(lower)[:, None]).sum(-1)
        together = xp.minimum(rounding.uncertainty_together(inside, lower), each)
        return xp.where(inside.sum(-1) <= _FEW, each, together)

    @cached_property
    def _weights(self) -> Array:
        return self.counts[:, 1:] - self.counts[:, :-1]


_MOST_TIMES = 16
"""What is narrow enough at both ends of a bracket mostly is so between them, too: once is the rule."""


def narrow_brackets(
    slices: Slices,
    table: CountTable,
    ranks: list[int],
    width: Callable[[Array], Array],
    schedule: Schedule,
    eps: float,
) -> tuple[Array, Array]:
    """Brackets lo, hi (m, k) of order statistics, ``N(lo) <= rank < N(hi)``, narrowed by multisection.

    Args:
        slices: counts.
        table: counts so far; its last point must lie above every value asked for.
        ranks: k ascending ranks from 0 (smallest) to ``size - 1`` (largest).
        width: the bracket width that is narrow enough near values (m, k).
        schedule: one that waits goes on until every bracket is narrow enough.
        eps: to which the spectra are rounded, which sets how many rounds one takes that does not wait.
    """
    wanted = constants(tuple(ranks), table.points)
    lo, hi = table.bracket(wanted)
    if schedule.waits:
        enough = functions_of(lo).minimum(width(lo), width(hi))
        for _ in range(_MOST_TIMES):
            lo, hi = slices.narrow(lo, hi, wanted, enough)
            enough = width(hi)
            if not bool((hi - lo > enough).any()):
                break
        return lo, hi
    matrices = table.points.shape[0]
    interior = schedule.interior_points(matrices * len(ranks))
    fractions = steps(interior, lo) / (interior + 1)
    for _ in range(schedule.rounds(matrices, interior, eps)):
        points = lo[..., None] + (hi - lo)[..., None] * fractions
        counts = slices.below(points.reshape(matrices, -1)).reshape(points.shape)
        passed = (counts <= wanted[:, None]).sum(-1)[..., None]
        edges = functions_of(lo).concatenate([lo[..., None], points, hi[..., None]], -1)
        lo, hi = pick(edges, passed)[..., 0], pick(edges, passed + 1)[..., 0]
    return lo, hi
