"""A scan as a person reads it in a terminal: one line a group, the best and the worst of each."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spectrum_fast.scoring.records import ModuleScore, ScanRecord
from spectrum_fast.selection.ranking import rank_modules
from spectrum_fast.selection.records import Selection

_TYPE_WIDTH = 26


def scan_table(scan: ScanRecord, selection: Selection | None = None, *, wide: bool = False) -> RenderableType:
    """One line a module type: how many modules, score range, best and worst module, how many the selection takes.

    Args:
        scan: what to show.
        selection: made from it; adds a column.
        wide: name the best module of each type; needs about 120 columns.
    """
    table = Table(box=box.SIMPLE_HEAD, title=_title(scan, selection), title_justify="left", pad_edge=False)
    table.add_column("type", overflow="fold", min_width=_TYPE_WIDTH)
    for heading in ("modules", "shape", "best", "median", "worst"):
        table.add_column(heading, justify="right")
    if wide:
        table.add_column("best module", overflow="fold")
    if selection is not None:
        table.add_column("taken", justify="right")
    taken = dict.fromkeys(scan.by_type(), 0)
    always = set(selection.always) if selection is not None else set()
    for module in selection.modules if selection is not None else ():
        taken[module.type] = taken.get(module.type, 0) + 1
    for name, modules in scan.by_type().items():
        ranked = rank_modules(modules)
        row = [
            name,
            str(len(modules)),
            _shapes(modules),
            format_score(ranked[0]),
            format_score(ranked[len(ranked) // 2]),
            format_score(ranked[-1]),
        ]
        if wide:
            row.append(ranked[0].name)
        if selection is not None:
            row.append("always" if any(module.name in always for module in modules) else str(taken[name]))
        table.add_row(*row)
    return Group(table, *(Text(line) for line in _remarks(scan)))


def format_score(module: ModuleScore) -> str:
    """Four significant digits, or the word for a module without noise."""
    return "noise-free" if module.snr is None else f"{module.snr:.4g}"


def _title(scan: ScanRecord, selection: Selection | None) -> str:
    title = f"{scan.model}: {len(scan.modules)} modules, criterion {scan.criterion}"
    if selection is not None and selection.top_percent is not None:
        title += f", top {selection.top_percent:g} % of each type"
    return title


def _shapes(modules: Sequence[ModuleScore]) -> str:
    shapes = {module.shape for module in modules if module.shape is not None}
    if len(shapes) != 1:
        return "various" if shapes else "-"
    return "x".join(str(extent) for extent in next(iter(shapes)))


def _remarks(scan: ScanRecord) -> list[str]:
    """Whatever a table of scores does not show: failures, ties, what was left out, how exact the scores are."""
    remarks = [f"{copy} is tied to {original} and was scored once" for copy, original in scan.ties.items()]
    bounds = [module.error_bound for module in scan.modules if module.error_bound is not None]
    if bounds:
        methods: dict[str, int] = {}
        for module in scan.modules:
            methods[module.method or "unknown"] = methods.get(module.method or "unknown", 0) + 1
        used = ", ".join(f"{count} by {method}" for method, count in methods.items())
        remarks.append(f"largest error bound {max(bounds):.1e} of the score; {used}")
    if scan.skipped:
        reasons: dict[str, int] = {}
        for _, reason in scan.skipped:
            reasons[reason] = reasons.get(reason, 0) + 1
        remarks.append("not scored: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()))
    remarks += [f"FAILED {failure.name}: {failure.message}" for failure in scan.failures]
    return remarks
