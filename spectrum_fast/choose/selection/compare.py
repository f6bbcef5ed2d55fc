"""Two scans side by side: score differences, rank correlation and the overlap of what they select."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spectrum_fast.choose.selection.ranking import check_percent, group_modules, towers_of
from spectrum_fast.measure.scoring.records import ModuleScore

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan


@dataclass(frozen=True, kw_only=True)
class ModuleDifference:
    """One module in both scans.

    Attributes:
        name: module name.
        type: its type in the first scan.
        snr_a: score in the first scan, None if noise-free there.
        snr_b: score in the second.
        relative: ``|a - b| / max(a, b)`` in [0, 1]; 0 if both are noise-free, None if only one is, and where the
            scores are of two criteria, which have no common scale.
    """

    name: str
    type: str
    snr_a: float | None
    snr_b: float | None
    relative: float | None


@dataclass(frozen=True, kw_only=True)
class SelectionOverlap:
    """How far two selections agree.

    Attributes:
        n_a: modules that the first selects.
        n_b: modules that the second selects.
        n_both: modules that both select.
        jaccard: ``n_both / |union|`` in [0, 1]; 1 if both are empty.
    """

    n_a: int
    n_b: int
    n_both: int
    jaccard: float


@dataclass(frozen=True, kw_only=True)
class ScanComparison:
    """Result of :func:`compare_scans`; ``a`` is the first scan, ``b`` the second.

    Attributes:
        model_a: what the first scan scanned.
        model_b: what the second scanned.
        criterion_a: rule behind the scores of the first.
        criterion_b: of the second.
        differences: one a common module, in the order of ``a``.
        only_a: modules with a score in ``a`` only.
        only_b: modules with a score in ``b`` only.
        max_relative: largest relative score difference; None if no pair has one.
        median_relative: their median.
        noise_free_mismatches: common modules that are noise-free in exactly one scan.
        spearman: rank correlation over all common modules, noise-free ranking highest; None where undefined. Types
            differ in scale in every model, so that it is high for models that have nothing else in common.
        spearman_by_type: the same in each type (of ``a``, ``tower:type`` in towers beside the language model).
        spearman_within_types: mean of those that are defined, weighted by modules; None where none is.
        top_percent: share of each type behind ``overlap``.
        overlap: of the selections among the common modules, nothing trained always.
    """

    model_a: str
    model_b: str
    criterion_a: str
    criterion_b: str
    differences: tuple[ModuleDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    max_relative: float | None
    median_relative: float | None
    noise_free_mismatches: tuple[str, ...]
    spearman: float | None
    spearman_by_type: Mapping[str, float | None]
    spearman_within_types: float | None
    top_percent: float
    overlap: SelectionOverlap


def compare_scans(a: Scan, b: Scan, top_percent: float = 25) -> ScanComparison:
    """Compare the scores of two scans module by module.

    Args:
        a: the first scan.
        b: the second; modules are paired by name.
        top_percent: share of each type for the overlap, in (0, 100].

    Raises:
        UsageError: ``top_percent`` is out of range.
    """
    check_percent(top_percent)
    in_a = {module.name: module for module in a.modules}
    in_b = {module.name: module for module in b.modules}
    pairs = [(module, in_b[name]) for name, module in in_a.items() if name in in_b]
    comparable = a.criterion == b.criterion
    differences = tuple(_difference(first, second, comparable) for first, second in pairs)
    relatives = [entry.relative for entry in differences if entry.relative is not None]
    groups = group_modules((first for first, _ in pairs), "type", towers_of(a))
    by_type = {name: [(first, in_b[first.name]) for first in members] for name, members in groups.items()}
    correlations = {name: _correlation(members) for name, members in by_type.items()}
    defined = [(value, len(by_type[name])) for name, value in correlations.items() if value is not None]
    return ScanComparison(
        model_a=a.model,
        model_b=b.model,
        criterion_a=a.criterion,
        criterion_b=b.criterion,
        differences=differences,
        only_a=tuple(name for name in in_a if name not in in_b),
        only_b=tuple(name for name in in_b if name not in in_a),
        max_relative=max(relatives, default=None),
        median_relative=statistics.median(relatives) if relatives else None,
        noise_free_mismatches=tuple(
            first.name for first, second in pairs if (first.snr is None) != (second.snr is None)
        ),
        spearman=_correlation(pairs),
        spearman_by_type=correlations,
        spearman_within_types=(
            sum(value * count for value, count in defined) / sum(count for _, count in defined) if defined else None
        ),
        top_percent=top_percent,
        overlap=_overlap(a, b, pairs, top_percent),
    )


def _difference(first: ModuleScore, second: ModuleScore, comparable: bool) -> ModuleDifference:
    if not comparable:
        relative = None
    elif first.snr is None or second.snr is None:
        relative = 0.0 if first.snr is None and second.snr is None else None
    else:
        largest = max(first.snr, second.snr)
        relative = abs(first.snr - second.snr) / largest if largest else 0.0
    return ModuleDifference(name=first.name, type=first.type, snr_a=first.snr, snr_b=second.snr, relative=relative)


def _correlation(pairs: Iterable[tuple[ModuleScore, ModuleScore]]) -> float | None:
    values = [(first.rank_value, second.rank_value) for first, second in pairs]
    return spearman([first for first, _ in values], [second for _, second in values])


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's correlation, in [-1, 1]: Pearson's of the ranks, equal values sharing the mean of theirs.

    Infinity is the largest value. None where it is undefined: fewer than two pairs, or all values of one side equal.
    """
    x, y = _centred_ranks(a), _centred_ranks(b)
    # Ranks are halves, so the sums are exact and no rounding takes the quotient out of [-1, 1].
    xx, yy = float(x @ x), float(y @ y)
    return float(x @ y) / math.sqrt(xx * yy) if xx and yy else None


def _centred_ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    _, place, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place] - (len(values) + 1) / 2


def _overlap(a: Scan, b: Scan, pairs: list[tuple[ModuleScore, ModuleScore]], top_percent: float) -> SelectionOverlap:
    """Select on both sides among the common modules, so that the answer is about ranks and not about coverage."""
    if not pairs:
        return SelectionOverlap(n_a=0, n_b=0, n_both=0, jaccard=1.0)
    chosen = []
    for scan, side in ((a, 0), (b, 1)):
        common = replace(scan, modules=tuple(pair[side] for pair in pairs), failures=(), ties={})
        chosen.append(set(common.select(top_percent, always="none", fused="parts").names))
    union = chosen[0] | chosen[1]
    both = chosen[0] & chosen[1]
    return SelectionOverlap(
        n_a=len(chosen[0]), n_b=len(chosen[1]), n_both=len(both), jaccard=len(both) / len(union) if union else 1.0
    )
