"""The comparison of two scans as a person reads it."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spectrum_fast.selection.compare import ModuleDifference, ScanComparison

_LARGEST = 10


def comparison_table(result: ScanComparison) -> RenderableType:
    """Rank correlation per type, the largest score differences, and how far the selections agree."""
    lines = [
        f"a: {result.model_a}",
        f"b: {result.model_b}",
        f"{len(result.differences)} modules in both, {len(result.only_a)} only in a, {len(result.only_b)} only in b",
        f"relative score difference: median {_number(result.median_relative)}, largest {_number(result.max_relative)}",
        f"rank correlation (Spearman): {_number(result.spearman)}",
        f"top {result.top_percent:g} % of each type: a takes {result.overlap.n_a}, b takes {result.overlap.n_b}, "
        f"both {result.overlap.n_both} (Jaccard {result.overlap.jaccard:.3f})",
    ]
    if result.noise_free_mismatches:
        lines.append("noise-free in one of them only: " + ", ".join(result.noise_free_mismatches))
    return Group(*(Text(line) for line in lines), _type_table(result), _difference_table(result))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _type_table(result: ScanComparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("type", overflow="fold")
    table.add_column("rank correlation", justify="right")
    for name, correlation in result.spearman_by_type.items():
        table.add_row(name, _number(correlation))
    return table


def _difference_table(result: ScanComparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="largest differences", title_justify="left", pad_edge=False)
    table.add_column("module", overflow="fold")
    for heading in ("a", "b", "relative"):
        table.add_column(heading, justify="right")
    ranked: list[ModuleDifference] = sorted(
        (entry for entry in result.differences if entry.relative is not None),
        key=lambda entry: -(entry.relative or 0.0),
    )
    for entry in ranked[:_LARGEST]:
        table.add_row(entry.name, _number(entry.snr_a), _number(entry.snr_b), _number(entry.relative))
    return table
