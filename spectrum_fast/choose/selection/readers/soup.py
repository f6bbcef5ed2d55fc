"""Soup: ``training.unfrozen_parameters``, each entry searched anywhere in a name (``re.search``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats.reference_yaml import parse_yaml, to_yaml
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted, match_entries, shapes_of

if TYPE_CHECKING:
    from torch import nn

_EXACT = re.compile(r"\^((?:\w|-|\\.)+)\$")


def _write(wanted: Wanted) -> str:
    entries = [f"^{re.escape(name)}$" for name in wanted.parameters]
    # Its default, 4bit, cannot be trained, and it refuses the one with the other.
    document = {"training": {"quantization": "none", "unfrozen_parameters": entries}}
    return to_yaml(document)


def _read(text: str, model: nn.Module) -> Reading:
    names = shapes_of(model)

    def match(entry: str) -> list[str]:
        exact = _EXACT.fullmatch(entry)
        if exact:
            name = re.sub(r"\\(.)", r"\1", exact[1])
            return [name] if name in names else []
        return [name for name in names if re.search(entry, name)]

    return match_entries(parse_yaml(text, "the file")["training"]["unfrozen_parameters"], match)


READER = Reader(
    name="soup",
    rule="`training.unfrozen_parameters`: `re.search`",
    write=_write,
    read=_read,
    usage="merge {file} into your soup.yaml",
)
