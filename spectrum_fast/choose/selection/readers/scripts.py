"""Two readers of the YAML's lines without a YAML library.

- ``line-parser``: lines that start with ``"- "``, ``re.match`` with dots as they are; scripts around TRL do this;
- ``readme``: the same lines, ``entry in name``; the snippet in the reference's README.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from spectrum_fast.choose.selection.readers.name_index import NameIndex
from spectrum_fast.choose.selection.readers.reading import PLAIN, Reader, Reading, match_entries, shapes_of


def lines_of_yaml(text: str) -> list[str]:
    """Entries as the line parsers cut them out: quotes, comments and all."""
    return [line.split("- ")[1] for line in text.splitlines() if line.startswith("- ")]


def read_as_line_parser(entries: Collection[str], names: Iterable[str]) -> Reading:
    """``re.match`` with dots as they are."""
    index = NameIndex(names)

    def match(entry: str) -> list[str]:
        if PLAIN.fullmatch(entry):
            return index.matching_dots(entry)
        return [name for name in index.names if re.match(entry, name)]

    return match_entries(entries, match)


def read_as_readme(entries: Collection[str], names: Iterable[str]) -> Reading:
    """``entry in name``."""
    index = NameIndex(names, entries)

    def match(entry: str) -> list[str]:
        if not PLAIN.fullmatch(entry):
            return [name for name in index.names if entry in name]
        return index.starting_with(entry) + index.containing(entry)

    return match_entries(entries, match)


LINE_PARSER = Reader(
    name="line-parser",
    rule='lines that start with "- ", `re.match` with dots as they are',
    read=lambda text, model: read_as_line_parser(lines_of_yaml(text), shapes_of(model)),
)

README = Reader(
    name="readme",
    rule="the same lines, `entry in name`",
    read=lambda text, model: read_as_readme(lines_of_yaml(text), shapes_of(model)),
)
