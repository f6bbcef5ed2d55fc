"""A scan as a person reads it in a terminal: one line a module type, the best and the worst of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.console import RenderableType
from rich.table import Table

from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.choose.selection.presented_scan import relation_of
from spectrum_fast.choose.selection.ranking import group_modules, rank_modules, towers_of
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.measure.scoring.records import SkippedTensor
from spectrum_fast.use.report.layout import SHOWN, add_row, page, plain_table
from spectrum_fast.words import count_of, list_some

_NOISE_FREE = "inf"


def scan_table(scan: Scan, selection: Selection | None = None, *, wide: bool = False) -> RenderableType:
    """One line a module type: how many modules, how many of them the selection takes, scores; fits 80 columns.

    ``taken`` says how many the selection takes of how many. ``wide``, for about 120 columns, names the best modules.

    Types of another tower than the language model follow its name (``vision:mlp.fc1``). Experts of one projection share
    a line (``mlp.experts.*.down_proj``), whatever grouping selects them; fused ones are
    shown as the selection takes them, each parameter or each part.
    """
    table = [_score_table(scan, selection, wide), ""] if scan.modules else []
    return page(_title(scan, selection), "", *table, *_remarks(scan, selection))


def format_score(snr: float | None) -> str:
    """Four significant digits; ``inf`` for a module without noise."""
    return _NOISE_FREE if snr is None else f"{snr:.4g}"


def _score_table(scan: Scan, selection: Selection | None, wide: bool) -> Table:
    headings = ["type", "modules" if selection is None else "taken", "shape", "best", "median", "worst"]
    table = plain_table(*headings, *(["best module"] if wide else []), words=("best module",))
    taken = {module.name for module in selection.modules} if selection is not None else set()
    always = set(selection.always) if selection is not None else set()
    fused = (selection.fused if selection is not None else None) or "parts"
    for name, modules in group_modules(competing_modules(scan, fused), "experts-merged", towers_of(scan)).items():
        ranked = rank_modules(modules)
        count = str(len(modules))
        if selection is not None:
            count = f"{sum(module.name in taken for module in modules)}/{count}"
        if any(module.name in always for module in modules):
            count = "always"
        row = [name, count, shared_shape(module.shape for module in modules)]
        row += [format_score(ranked[place].snr) for place in (0, len(ranked) // 2, -1)]
        if wide:
            row.append(ranked[0].name)
        add_row(table, *row)
    return table


def _title(scan: Scan, selection: Selection | None) -> str:
    title = (
        f"{scan.model}{relation_of(scan)}: {count_of(len(scan.modules), 'module')} scored, criterion {scan.criterion}"
    )
    if selection is not None and selection.top_percent is not None:
        title += f", top {selection.top_percent:g} % of each type"
    return title


def shared_shape(shapes: Iterable[tuple[int, ...] | None]) -> str:
    """The shape that all have of which it is known; ``various`` where they differ, ``-`` where it is known of none."""
    known = set(shapes) - {None}
    if len(known) == 1:
        return "x".join(map(str, known.pop() or ()))
    return "various" if known else "-"


def _remarks(scan: Scan, selection: Selection | None) -> list[str]:
    """What a table of scores does not show: accuracy, ties, what was left out, what failed."""
    remarks = []
    tower = towers_of(scan)
    towers = Counter(tower[module.name] for module in scan.modules)
    if len(towers) > 1:
        counts = ", ".join(f"{tower} {count:,}" for tower, count in towers.items())
        remarks.append(f"modules by tower (select --only): {counts}")
    groups = selection.groups if selection is not None else ()
    if undecided := [group.name for group in groups if group.undecided]:
        remarks.append(f"tied at the cut, taken in the order of names: {list_some(undecided, SHOWN)}")
    if noise_free := sum(module.noise_free for module in scan.modules):
        remarks.append(
            f"{_NOISE_FREE}: {count_of(noise_free, 'noise-free module')}, no singular value below the threshold"
        )
    if bounds := [module.error_bound for module in scan.modules if module.error_bound is not None]:
        methods = Counter(module.method or "unknown" for module in scan.modules)
        used = ", ".join(f"{count} by {method}" for method, count in methods.items())
        remarks.append(f"largest relative error bound {max(bounds):.1e}; {used}")
    notes = scan.provenance.get("notes", ())
    remarks += what_is_left_out(scan.ties, scan.skipped, notes if isinstance(notes, (list, tuple)) else ())
    if scan.failures:
        names = list_some([failure.name for failure in scan.failures], SHOWN)
        remarks.append(f"FAILED, no score: {count_of(len(scan.failures), 'tensor')}: {names}")
    return remarks


def what_is_left_out(ties: Mapping[str, str], skipped: Iterable[SkippedTensor], notes: Iterable[str]) -> list[str]:
    """Remarks on tensors that a scan does not score, or only once, and on what was passed over."""
    remarks = []
    if ties:
        pairs = [f"{copy} = {original}" for copy, original in ties.items()]
        remarks.append(f"equal tensors, scored once: {list_some(pairs, SHOWN)}")
    if reasons := Counter(reason for _, reason in skipped).most_common():
        remarks.append("not scored: " + list_some([f"{count} x {reason}" for reason, count in reasons], SHOWN))
    return [*remarks, *(f"note: {note}" for note in notes)]
