"""Layout that the tables share: no frame, two blanks between columns, so that 80 columns hold a table of scores."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.containers import Lines
from rich.table import Table
from rich.text import Text

SHOWN = 4
"""Items of a list that a line of text names; files name all of them."""


# Control characters move a terminal's cursor, and marks of direction make a name look like another one.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with characters spelled out that a terminal would act on or hide; names come from strangers' files.

    >>> printable("a\x1b[31mb\u202ec")
    'a\\u001b[31mb\\u202ec'
    """
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _Cell(Text):
    """A cell that breaks a dotted name behind its dots."""

    def wrap(self, console: Console, width: int, **how: Any) -> Lines:
        """The lines of a name too long for the column; of other text, rich's."""
        if " " in self.plain or self.cell_len <= width or not self.plain.isascii():
            return super().wrap(console, width, **how)
        return self.divide(_breaks(self.plain, width))


def _breaks(name: str, room: int) -> list[int]:
    """Where lines of a name begin: behind the last dot that fits, else the last underscore, else anywhere.

    >>> _breaks("vision_tower.embeddings.position_embedding", 36), _breaks("position_embedding", 10), _breaks("abc", 2)
    ([24], [9], [2])
    """
    offsets, start = [], 0
    while len(name) - start > room:
        line = name[start : start + room]
        start += line.rfind(".") + 1 or line.rfind("_") + 1 or room
        offsets.append(start)
    return offsets


def page(*parts: RenderableType) -> Group:
    """Lines of text and tables, one below the other; what text holds is shown as :func:`printable` has it."""
    return Group(*(Text(printable(part)) if isinstance(part, str) else part for part in parts))


def plain_table(*headings: str, words: Collection[str] = ()) -> Table:
    """An empty table without frame, its headings underlined.

    The first column and those named in ``words`` hold text, to the left, broken over lines rather than cut; the others
    hold figures, to the right and whole.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        if place == 0 or heading in words:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def facts_table(facts: Mapping[str, str | None]) -> Table:
    """Labels and what is said of them, a line each; what is None is left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, fact in facts.items():
        if fact is not None:
            add_row(table, label, fact)
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text: names come from files, and brackets or colons in them are no markup."""
    table.add_row(*(_Cell(printable(cell)) for cell in cells))
