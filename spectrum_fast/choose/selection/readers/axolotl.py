r"""axolotl: ``unfrozen_parameters`` of its configuration, full fine-tuning of what matches.

Rule (``freeze_layers_except``): ``re.match``, so a pattern is anchored at the start only; dots are literal unless a
``+`` follows; ``[a:b]`` at the end names rows. It is held to axolotl's own code in ``test_readers_in_tools.py``.

What is written here are names of the running model: a module's name where, read as a prefix, it means exactly that
module's parameters, and else ``^name$`` for each of them, with rows where only some of its experts are trained. The
format ``axolotl`` of the reference, byte for byte, is :mod:`spectrum_fast.choose.selection.formats.reference_yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats.reference_yaml import KEY, parse_yaml, spell_entries
from spectrum_fast.choose.selection.readers.name_index import NameIndex
from spectrum_fast.choose.selection.readers.reading import (
    PLAIN,
    Reader,
    Reading,
    Wanted,
    match_entries,
    shapes_of,
)
from spectrum_fast.errors import SelectionError

if TYPE_CHECKING:
    import torch

_ROWS = re.compile(r"^(.+)\[([0-9]*)(?::([0-9]*))?\]$")


def read_as_axolotl(entries: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """Axolotl's rule; a parameter that an entry gives a range of rows is trained in these rows only."""
    starting_with = NameIndex(shapes).starting_with
    rows: dict[str, set[int]] = {}

    def match(entry: str) -> list[str]:
        name, span = _split_rows(entry)
        pattern = re.sub(r"\.(?!\+)", r"\\.", name)
        plain = PLAIN.fullmatch(name)
        found = starting_with(name) if plain else [one for one in shapes if re.match(pattern, one)]
        if span is not None:
            for parameter in found:
                rows.setdefault(parameter, set()).update(_rows(entry, span, shapes[parameter]))
        return found

    reading = match_entries(entries, match)
    # An entry without a range does not widen one with a range: axolotl masks the gradient as soon as one is given.
    return replace(reading, kept={name: _kept(taken, shapes[name]) for name, taken in rows.items()})


def _kept(rows: set[int], shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    keep = torch.zeros(shape[0], *[1] * (len(shape) - 1), dtype=torch.bool)
    keep[sorted(rows)] = True
    return keep


def entries_of_yaml(text: str, source: str) -> list[str]:
    """The entries as the YAML library reads them.

    Raises:
        SelectionError: no YAML, or no list of texts under ``unfrozen_parameters``.
    """
    document = parse_yaml(text, source)
    entries = document.get(KEY.rstrip(":")) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise SelectionError(f"{source}: expected a list of texts under {KEY!r}, found {str(entries)[:60]!r}")
    return entries


def _write(wanted: Wanted) -> str:
    starting_with = NameIndex(shapes_of(wanted.model)).starting_with
    by_home: dict[str, set[str]] = {}
    for name in wanted.parameters:
        by_home.setdefault(name.rpartition(".")[0], set()).add(name)
    entries = []
    for home, names in by_home.items():
        exact = home and set(starting_with(home)) == names and names.isdisjoint(wanted.kept)
        spelt = [f"^{name}${rows}" for name in wanted.parameters if name in names for rows in _ranges(wanted, name)]
        entries += [home] if exact else spelt
    return f"{KEY}\n{spell_entries(entries)}"


def _ranges(wanted: Wanted, name: str) -> list[str]:
    """``[a:b]`` for every run of rows that are trained; nothing to say of a parameter that is trained whole.

    Raises:
        SelectionError: less than a row of it is trained.
    """
    keep = wanted.kept.get(name)
    if keep is None:
        return [""]
    if keep.numel() != keep.shape[0]:
        raise SelectionError(
            f"axolotl trains whole rows of a parameter, which in {name} are whole experts, and a part of an expert is "
            "selected; let the parameter compete as one (--fused parameter), or write for another reader (--for trl)"
        )
    rows = keep.flatten().nonzero().flatten().tolist()
    starts = [row for row in rows if row - 1 not in rows]
    ends = [row + 1 for row in rows if row + 1 not in rows]
    return [f"[{start}:{end}]" for start, end in zip(starts, ends, strict=True)]


READER = Reader(
    name="axolotl",
    rule="`unfrozen_parameters`: `re.match`, anchored at the start only, dots literal",
    write=_write,
    read=lambda text, model: read_as_axolotl(entries_of_yaml(text, "the file"), shapes_of(model)),
    usage="add the lines of {file} to your axolotl configuration, without an adapter",
    holds=True,
)


def _split_rows(entry: str) -> tuple[str, tuple[int, int | None] | None]:
    """``name$[a:b]`` -> the name and the range, ``[a]`` one row."""
    found = _ROWS.match(entry)
    if found is None:
        return entry, None
    name, first, last = found.groups()
    if last is None and first:
        return name, (int(first), int(first) + 1)
    return name, (int(first or 0), int(last) if last else None)


def _rows(entry: str, span: tuple[int, int | None], shape: tuple[int, ...]) -> range:
    height = shape[0] if shape else 0
    first, last = span[0], height if span[1] is None else span[1]
    if first >= last or last > height:
        raise ValueError(f"invalid range of rows in {entry!r}: the parameter has {height}")
    return range(first, last)
