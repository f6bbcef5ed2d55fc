"""The scans of a library as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from spectrum_fast.choose.library import LibraryEntry
from spectrum_fast.use.report.layout import add_row, plain_table


def library_table(entries: Sequence[LibraryEntry]) -> RenderableType:
    """One line a scan; the slug breaks over lines rather than lose an end."""
    table = plain_table("model", "criterion", "modules", "types", "holds", words=("criterion", "holds"))
    for entry in entries:
        whole = entry.files[0].rpartition("/")[2].startswith("scan_")
        add_row(
            table,
            entry.slug,
            entry.criterion,
            "broken" if entry.problem else _count(entry.modules),
            _count(entry.types),
            "whole scan" if whole else "scores",
        )
    return table


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value}"
