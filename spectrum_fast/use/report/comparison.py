"""The comparison of two scans as a person reads it."""

from __future__ import annotations

from rich.console import RenderableType

from spectrum_fast.choose.selection.compare import ScanComparison
from spectrum_fast.use.report.layout import SHOWN, add_row, page, plain_table
from spectrum_fast.use.report.table import format_score
from spectrum_fast.words import count_of, list_some

_LARGEST = 10


def comparison_table(result: ScanComparison, files: tuple[str, str] = ("", "")) -> RenderableType:
    """Rank correlation per type, the largest score differences, and how far the selections agree."""
    parts: list[RenderableType] = [*_headline(result, files)]
    if result.differences:
        table = plain_table("type", "rank correlation")
        for name, correlation in result.spearman_by_type.items():
            add_row(table, name, _number(correlation))
        parts += ["", table]
        if result.criterion_a == result.criterion_b:
            unequal = sorted(
                (entry for entry in result.differences if entry.relative), key=lambda entry: -(entry.relative or 0.0)
            )
            largest = plain_table("largest differences", "a", "b", "relative")
            for each in unequal[:_LARGEST]:
                add_row(largest, each.name, format_score(each.snr_a), format_score(each.snr_b), _number(each.relative))
            parts += ["", largest if unequal else "all scores are equal"]
    return page(*parts)


def _headline(result: ScanComparison, files: tuple[str, str]) -> list[str]:
    common = len(result.differences)
    first, second = (f" in {file}" if file else "" for file in files)
    lines = [
        f"a: {result.model_a} by {result.criterion_a}{first}",
        f"b: {result.model_b} by {result.criterion_b}{second}",
        f"{count_of(common, 'module')} in both, {len(result.only_a)} only in a, {len(result.only_b)} only in b",
    ]
    for side, names in (("a", result.only_a), ("b", result.only_b)):
        if names:
            lines.append(f"only in {side}: {list_some(names, SHOWN)}")
    if not common:
        return [*lines, "nothing to compare: no module has a score in both"]
    overlap = result.overlap
    lines += [
        f"rank correlation (Spearman) within types: {_number(result.spearman_within_types)}; over all modules "
        f"{_number(result.spearman)}, which types of different scale make high",
        f"relative score difference: median {_number(result.median_relative)}, largest {_number(result.max_relative)}"
        if result.criterion_a == result.criterion_b
        else "scores of two criteria have no common scale: ranks alone are compared",
        f"top {result.top_percent:g} % of each type: "
        + (
            f"a takes {overlap.n_a}, b takes {overlap.n_b}, both {overlap.n_both} (Jaccard {overlap.jaccard:.3f})"
            if overlap.n_a or overlap.n_b
            else "neither takes a module, the types are too small"
        ),
    ]
    if result.noise_free_mismatches:
        lines.append(
            f"noise-free in one of them only: {len(result.noise_free_mismatches)}: "
            + list_some(result.noise_free_mismatches, SHOWN)
        )
    return lines


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
