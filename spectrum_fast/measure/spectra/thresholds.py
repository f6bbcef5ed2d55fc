"""Where the order statistics of sliced bands lie, and on which side of the threshold that they imply each value.

What float32 leaves in doubt there is refined, a few values at a time, where a band comes with a
:class:`~spectrum_fast.measure.spectra.refinement.Refinement`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from spectrum_fast.measure.spectra.arrays import Array, columns, constants, functions_of
from spectrum_fast.measure.spectra.binning import Bins, bins_of
from spectrum_fast.measure.spectra.counts import CountTable, Slices, narrow_brackets
from spectrum_fast.measure.spectra.record import Criterion, OrderStatistics
from spectrum_fast.measure.spectra.refinement import MOST, Refinement
from spectrum_fast.measure.spectra.rounding import Rounding
from spectrum_fast.measure.spectra.schedule import Schedule

_FRACTIONS = (0.25, 0.5, 0.75)
_CORNERS = tuple(zip(*[(0.0, 0.0, 0.0), *product((-1.0, 1.0), repeat=3)], strict=True))
"""Of what three quartiles may be: signs of the error of each, first none."""
_ALONE = ((0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
"""Each by itself."""
_NARROW = 0.02
"""Width of a bracket that is narrow enough, in units of its value's uncertainty."""
_NARROW_SHARE = 1e-2
"""And relative to the value, in units of the tolerance of a score: what float64 knows beyond it is not asked for."""


@dataclass(frozen=True)
class Band:
    """A batch of bands and what is known of them before they are sliced.

    Attributes:
        slices: counts and log-determinants.
        size: singular values of each.
        traces: (m,) of their Gram matrices.
        norms: (m,) Frobenius norms of these.
        band_traces: (m,) of the bands.
        consistent: (m,) bool, whether trace and norm came through the reduction.
        rounding: how far each computed spectrum may be from the true one.
        refinement: of single values, of a batch of one whose threshold is in doubt.
    """

    slices: Slices
    size: int
    traces: Array
    norms: Array
    band_traces: Array
    consistent: Array
    rounding: Rounding
    refinement: Refinement | None = None


@dataclass(frozen=True)
class Thresholds:
    """Where the thresholds are, and where they may be given that the quartiles are not exactly known; all (m,).

    Attributes:
        middle: of the quartiles as computed.
        lowest: at least this.
        highest: at most this.
        relative: half the width in units of the threshold, or 0 if the score does not depend on it.
    """

    middle: Array
    lowest: Array
    highest: Array
    relative: Array

    @classmethod
    def of(
        cls, criterion: Criterion, statistics: OrderStatistics, errors: Sequence[Array], n_min: int, n_max: int
    ) -> Thresholds:
        """The threshold of the quartiles and at all corners of what they may be.

        Args:
            criterion: the rule; its arithmetic is done on arrays.
            statistics: as computed, arrays (m,).
            errors: absolute, of q25, q50 and q75, arrays (m,).
            n_min: short side of the matrices.
            n_max: long side.
        """
        all_of_them = _thresholds_at(_CORNERS, criterion, statistics, errors, n_min, n_max)
        xp = functions_of(all_of_them)
        lowest, highest = xp.amin(all_of_them, 1), xp.amax(all_of_them, 1)
        centre = 0.5 * (lowest + highest)
        relative = xp.where(centre > 0, criterion.threshold_power * 0.5 * (highest - lowest) / centre, 0.0)
        return cls(all_of_them[:, 0], lowest, highest, relative)


def _thresholds_at(
    signs: tuple[tuple[float, ...], ...],
    criterion: Criterion,
    statistics: OrderStatistics,
    errors: Sequence[Array],
    n_min: int,
    n_max: int,
) -> Array:
    """Thresholds (m, c) of quartiles moved by c times their errors; ``signs`` a row of c for each quartile."""
    found: Any = statistics
    quartiles = zip((found.q25, found.q50, found.q75), signs, errors, strict=True)
    q25, q50, q75 = (value[:, None] + constants(each, value) * error[:, None] for value, each, error in quartiles)
    varied: Any = OrderStatistics(found.s_min[:, None], q25, q50, q75, found.s_max[:, None])
    xp = functions_of(q50)
    return xp.broadcast_to(xp.asarray(criterion.threshold(varied, n_min, n_max)), q50.shape)


def noise_edges(criterion: Criterion, statistics: OrderStatistics, error: Any, n_min: int, n_max: int) -> list[Any]:
    """Least, likeliest and greatest edge of noise, for the median as it is and ``error`` off; arrays or numbers."""
    medians = (statistics.q50 - error, statistics.q50, statistics.q50 + error)
    return [criterion.edge(replace(statistics, q50=median), n_min, n_max) for median in medians]


@dataclass(frozen=True)
class Ordered:
    """Values of a few ranks, the smallest and the largest among them.

    Attributes:
        size: singular values of each matrix.
        ranks: k ascending, from 0.
        lo: (m, k) the computed value is no smaller.
        hi: (m, k) and smaller than this.
        values: (m, k).
        errors: (m, k) bounds on how far they are from the true ones.
    """

    size: int
    ranks: list[int]
    lo: Array
    hi: Array
    values: Array
    errors: Array

    @classmethod
    def of(cls, band: Band, table: CountTable, tolerance: float, schedule: Schedule) -> Ordered:
        """Those that the order statistics are made of, by multisection."""
        ranks = sorted({0, band.size - 1, *(rank for lo, hi, _ in _quantiles(band.size) for rank in (lo, hi))})
        lo, hi = _brackets(band, table, ranks, tolerance, schedule)
        value, error = 0.5 * (lo + hi), 0.5 * (hi - lo) + band.rounding.uncertainty(hi)
        xp, hiding = functions_of(value), band.rounding.floor
        error = xp.where(value < hiding, xp.maximum(error, hiding + band.rounding.rise(hiding)), error)
        return cls(band.size, ranks, lo, hi, value, error)

    @cached_property
    def statistics(self) -> Any:
        """As arrays (m,)."""
        return OrderStatistics(*self._read_off(self.values))

    @cached_property
    def statistics_errors(self) -> tuple[Array, ...]:
        """Bounds on the error of each of them, (m,)."""
        return self._read_off(self.errors)

    def thresholds(self, criterion: Criterion, n_max: int) -> Thresholds:
        """That they imply."""
        return Thresholds.of(criterion, self.statistics, self.statistics_errors[1:4], self.size, n_max)

    def refined(self, band: Band, refinement: Refinement, criterion: Criterion, n_max: int) -> Ordered:
        """The same with those quartiles refined that the threshold depends on, of one matrix."""
        at = _thresholds_at(_ALONE, criterion, self.statistics, self.statistics_errors[1:4], self.size, n_max)
        matters = (at[0, 1:] != at[0, :1]).tolist()
        quartiles = [(below, above) for below, above, _ in _quantiles(self.size)]
        ranks = sorted({rank for pair, does in zip(quartiles, matters, strict=True) if does for rank in pair})
        if not ranks:
            return self
        places = [self.ranks.index(rank) for rank in ranks]
        lo, hi, values, errors = (of[:, places] for of in (self.lo, self.hi, self.values, self.errors))
        found, off = refinement.refine(ranks, lo, hi, band.slices, band.rounding)
        xp, better = functions_of(found), off < errors

        def with_refined(of: Array, refined: Array) -> Array:
            changed = 1.0 * of
            changed[:, places] = refined
            return changed

        values, errors = xp.where(better, found, values), xp.where(better, off, errors)
        return replace(self, values=with_refined(self.values, values), errors=with_refined(self.errors, errors))

    def _read_off(self, of: Array) -> tuple[Any, ...]:
        at = self.ranks.index
        between = [(1 - w) * of[:, at(below)] + w * of[:, at(above)] for below, above, w in _quantiles(self.size)]
        return of[:, 0], *between, of[:, -1]


def _quantiles(size: int) -> list[tuple[int, int, float]]:
    """Ranks (from 0) and weight that each quartile is interpolated by: ``(1 - w) s_lo + w s_hi``."""
    positions = [fraction * (size - 1) for fraction in _FRACTIONS]
    return [(int(position), min(int(position) + 1, size - 1), position % 1) for position in positions]


def _brackets(
    band: Band, table: CountTable, ranks: list[int], tolerance: float, schedule: Schedule
) -> tuple[Array, Array]:
    least = max(4 * sys.float_info.epsilon, _NARROW_SHARE * tolerance)

    def narrow_enough(t: Array) -> Array:
        return functions_of(t).maximum(_NARROW * band.rounding.uncertainty(t), least * t)

    return narrow_brackets(band.slices, table, ranks, narrow_enough, schedule, band.rounding.eps)


@dataclass(frozen=True)
class Split:
    """Spectra cut at their thresholds.

    Attributes:
        thresholds: and how far they are in doubt.
        special: (m, 6) points: ends of that doubt around the threshold, where the integrals of noise and signal start,
            and a point at or above all values.
        edges: (m, 3) least, likeliest and greatest edge of noise.
        bins: of the histogram.
        table: of counts, at all those points among others.
        n_noise: (m,) values below the threshold.
        n_undecided: (m,) of which it is not known on which side they lie.
        moved: (m,) how much the sums are off by values that are counted on the other side than the band's own.
    """

    thresholds: Thresholds
    special: Array
    edges: Array
    bins: Bins
    table: CountTable
    n_noise: Array
    n_undecided: Array
    moved: Array

    @classmethod
    def of(cls, band: Band, table: CountTable, ordered: Ordered, criterion: Criterion, n_max: int) -> Split:
        """By the order statistics; one evaluation of counts."""
        statistics, error, xp = ordered.statistics, ordered.statistics_errors[2], functions_of(ordered.lo)
        thresholds = ordered.thresholds(criterion, n_max)
        edges = columns(*noise_edges(criterion, statistics, error, band.size, n_max))
        doubt = band.rounding.uncertainty(columns(thresholds.middle, edges[:, 1]))
        special = _special_points(band, ordered, thresholds, doubt[:, :1])
        edges = (edges + doubt[:, 1:] * constants((-1.0, 0.0, 1.0), edges)).clip(0.0)
        bins = bins_of(statistics)
        points = xp.concatenate([special, edges, bins.inner], 1)
        return cls._counted(thresholds, special, edges, bins, table.with_counts(points, band.slices.below(points)))

    @classmethod
    def _counted(cls, thresholds: Thresholds, special: Array, edges: Array, bins: Bins, table: CountTable) -> Split:
        xp, n_special = functions_of(special), table.below(special[:, :3])
        # No true value lies below zero, though rounding makes negative ones: those of size zero are undecided too.
        n_undecided = n_special[:, 2] - xp.where(special[:, 0] > 0, n_special[:, 0], 0.0)
        moved = 0.0 * n_undecided
        return cls(thresholds, special, edges, bins, table, n_special[:, 1], n_undecided, moved)

    def moved_to(self, band: Band, ordered: Ordered, criterion: Criterion, n_max: int) -> Split:
        """Cut at the thresholds of order statistics that are known better; edges and bins stay, which are no worse."""
        thresholds = ordered.thresholds(criterion, n_max)
        doubt = band.rounding.uncertainty(thresholds.middle[:, None])
        special = _special_points(band, ordered, thresholds, doubt)
        points = special[:, :5]
        table = self.table.with_counts(points, band.slices.below(points))
        return self._counted(thresholds, special, self.edges, self.bins, table)

    def decided(self, band: Band, refinement: Refinement, tolerance: float, schedule: Schedule) -> Split:
        """The same with the undecided values refined, of one matrix, where they are few."""
        first, count = int(self.table.below(self.special[:, :1])[0, 0]), int(self.n_undecided[0])
        if not 0 < count <= MOST or not bool(self.special[0, 0] > 0):
            return self
        xp, ranks = functions_of(self.special), list(range(first, first + count))
        brackets = _brackets(band, self.table, ranks, tolerance, schedule)
        values, errors = refinement.refine(ranks, *brackets, band.slices, band.rounding)
        below = (values + errors < self.thresholds.lowest[:, None]).sum(1)
        above = (values - errors > self.thresholds.highest[:, None]).sum(1)
        n_undecided = self.n_undecided - below - above
        n_noise = first + below + xp.floor(0.5 * n_undecided)
        moved = abs(n_noise - self.n_noise) * (self.special[:, 2] - self.special[:, 0])
        return replace(self, n_noise=n_noise, n_undecided=n_undecided, moved=moved)


def _special_points(band: Band, ordered: Ordered, thresholds: Thresholds, doubt: Array) -> Array:
    """(m, 6), see :class:`Split`, of thresholds near which a value is uncertain by ``doubt`` (m, 1)."""
    floor, t = band.rounding.floor[:, 0], thresholds.middle
    xp, doubt = functions_of(t), doubt[:, 0]
    lowest, highest = (thresholds.lowest - doubt).clip(0.0), thresholds.highest + doubt
    noise_start, top = xp.maximum(floor, ordered.lo[:, 0]), ordered.hi[:, -1]
    return columns(lowest, t, highest, noise_start, xp.maximum(t, floor), top)
