"""What each reader of a selection trains, as a person reads it."""

from __future__ import annotations

from rich.console import RenderableType

from spectrum_fast.choose.selection.export.check import ReaderReport, SelectionCheck
from spectrum_fast.use.report.layout import SHOWN, add_row, page, plain_table
from spectrum_fast.words import count_of, list_some


def check_table(result: SelectionCheck) -> RenderableType:
    """One line a reader, then the differences in words."""
    table = plain_table("reader", "entries", "parameters", "values", "share", "verdict", words=("verdict",))
    for report in result.reports:
        add_row(
            table,
            report.reader,
            f"{report.reading.entries - len(report.reading.unmatched)}/{report.reading.entries}",
            f"{len(report.parameters)}",
            f"{report.values:,}",
            f"{100 * report.share:.2f} %",
            "refuses" if report.reading.problem else "as selected" if report.agrees else "differs",
        )
    whose = "checkpoint" if result.note else "running model"
    title = f"{result.model}: {result.total_values:,} values, parameter names of the {whose}"
    words = [line for report in result.reports for line in _differences(report)]
    for entry, near in result.lost.items():
        words.append(f"{entry} matches nothing" + (f"; nearest: {', '.join(near)}" if near else ""))
    note = ["", f"note: {result.note}"] if result.note else []
    return page(title, "", table, *([""] if words else []), *words, *note)


def _differences(report: ReaderReport) -> list[str]:
    lines = []
    if report.reading.problem:
        lines.append(f"{report.reader}: {report.reading.problem}")
    if report.extra:
        lines.append(f"{report.reader} also trains {len(report.extra)}: {list_some(report.extra, SHOWN)}")
    if report.missing:
        lines.append(f"{report.reader} leaves frozen {len(report.missing)}: {list_some(report.missing, SHOWN)}")
    if not (report.reading.problem or report.extra or report.missing) and report.values != report.wanted_values:
        lines.append(
            f"{report.reader} trains {report.values:,} values of these parameters, the selection says "
            f"{report.wanted_values:,}: it does not see ranges of rows"
        )
    if report.reading.unmatched:
        entries = count_of(len(report.reading.unmatched), "entry", "entries")
        lines.append(f"{report.reader}: {entries} matching nothing: {list_some(report.reading.unmatched, SHOWN)}")
    return lines
