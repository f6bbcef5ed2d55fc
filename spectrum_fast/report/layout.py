"""Layout that the tables share: no frame, two blanks between columns, so that 80 columns hold a table of scores."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

_SHOWN = 4
"""Items of a list that a line of text names; files name all of them."""


def plain_table() -> Table:
    """An empty table without frame, its headings underlined."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text: names come from files, and brackets or colons in them are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def shorten_list(items: Sequence[str], limit: int = _SHOWN) -> str:
    """The first items, and how many more there are.

    >>> shorten_list(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
