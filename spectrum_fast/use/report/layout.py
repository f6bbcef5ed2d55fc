"""Layout that the tables share: no frame, two blanks between columns, so that 80 columns hold a table of scores."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

_SHOWN = 4
"""Items of a list that a line of text names; files name all of them."""


# Control characters move a terminal's cursor, and marks of direction make a name look like another one.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with characters spelled out that a terminal would act on or hide; names come from strangers' files.

    >>> printable("a\x1b[31mb\u202ec")
    'a\\u001b[31mb\\u202ec'
    """
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain_table() -> Table:
    """An empty table without frame, its headings underlined."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text: names come from files, and brackets or colons in them are no markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def shorten_list(items: Sequence[str], limit: int = _SHOWN) -> str:
    """The first items, and how many more there are.

    >>> shorten_list(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
