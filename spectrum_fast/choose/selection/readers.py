r"""What the readers of an exported selection would train: each one's rule, on the parameters of a model.

- ``spectrum-fast``: :func:`spectrum_fast.choose.selection.apply.apply_selection`, exact names, wrappers understood;
- ``axolotl``: ``freeze_layers_except``, ``re.match`` with literal dots (unless a ``+`` follows) and ``[a:b]`` for rows;
- ``line-parser``: lines that start with ``"- "``, ``re.match`` with dots as they are; scripts around TRL do this;
- ``readme``: the same lines, ``entry in name``; the snippet in the reference's README;
- ``peft``: ``LoraConfig(target_modules=[...])``, equal or ending with ``"." + entry``; LLaMA-Factory's ``lora_target``
  hands its names on to it.

Each rule is held to the tool's own code in ``tests/choose/selection/test_readers_in_tools.py``. The first four free
parameters; the last hangs adapters on modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from spectrum_fast.choose.selection.name_index import NameIndex

_PLAIN = re.compile(r"[\w.-]+")
_ROWS = re.compile(r"^(.+)\[([0-9]*)(?::([0-9]*))?\]$")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reader makes of the entries.

    Attributes:
        parameters: names of the parameters it frees, or (``peft``) of the weights it hangs adapters on.
        rows: parameter -> the rows of it that are trained, where an entry names a range of rows.
        entries: how many entries it sees.
        unmatched: the entries that match nothing.
        problem: why it refuses the file; empty if it does not.
    """

    parameters: frozenset[str]
    entries: int
    unmatched: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


def lines_of_yaml(text: str) -> list[str]:
    """Entries as the line parsers cut them out: quotes, comments and all."""
    return [line.split("- ")[1] for line in text.splitlines() if line.startswith("- ")]


def read_as_axolotl(entries: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """Axolotl's rule; a parameter whose every matching entry has a range of rows is trained in these rows only."""
    wanted = list(entries)
    index = NameIndex(list(shapes), set())
    found: dict[str, list[str]] = {}
    rows: dict[str, set[int]] = {}
    whole: set[str] = set()
    try:
        for entry in wanted:
            name, span = _split_rows(entry)
            if _PLAIN.fullmatch(name):
                matched = index.starting_with(name)
            else:
                matched = _matching(re.compile(re.sub(r"\.(?!\+)", r"\\.", name)), shapes)
            found[entry] = matched
            for parameter in matched:
                if span is None:
                    whole.add(parameter)
                else:
                    rows.setdefault(parameter, set()).update(_rows(entry, span, shapes[parameter]))
    except (re.error, ValueError) as error:
        return Reading(parameters=frozenset(), entries=len(wanted), problem=str(error))
    # An entry without a range does not widen one with a range: axolotl masks the gradient as soon as one is given.
    return Reading(
        parameters=frozenset(whole | set(rows)),
        rows={name: len(taken) for name, taken in rows.items()},
        entries=len(wanted),
        unmatched=tuple(entry for entry, matched in found.items() if not matched),
    )


def read_as_line_parser(entries: Iterable[str], names: Iterable[str]) -> Reading:
    """``re.match`` with dots as they are."""

    def match(entry: str, index: NameIndex, known: list[str]) -> list[str]:
        return index.matching_dots(entry) if _PLAIN.fullmatch(entry) else _matching(re.compile(entry), known)

    return _read(entries, names, match)


def read_as_readme(entries: Iterable[str], names: Iterable[str]) -> Reading:
    """``entry in name``."""

    def match(entry: str, index: NameIndex, known: list[str]) -> list[str]:
        if not _PLAIN.fullmatch(entry):
            return [name for name in known if entry in name]
        return index.starting_with(entry) + index.containing(entry)

    return _read(entries, names, match)


def read_as_peft(entries: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """PEFT's rule for a list of names, on modules that hold a matrix called ``weight``."""
    wanted = list(dict.fromkeys(entries))
    weights = [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2]
    by_tail: dict[str, list[str]] = {}
    for weight in weights:
        parts = weight.removesuffix(".weight").split(".")
        for start in range(len(parts)):
            by_tail.setdefault(".".join(parts[start:]), []).append(weight)
    return Reading(
        parameters=frozenset(weight for entry in wanted for weight in by_tail.get(entry, ())),
        entries=len(wanted),
        unmatched=tuple(entry for entry in wanted if entry not in by_tail),
    )


def _read(
    entries: Iterable[str], names: Iterable[str], match: Callable[[str, NameIndex, list[str]], list[str]]
) -> Reading:
    wanted, known = list(entries), list(names)
    index = NameIndex(known, {entry.partition(".")[0] for entry in wanted})
    try:
        found = {entry: match(entry, index, known) for entry in wanted}
    except re.error as error:
        return Reading(parameters=frozenset(), entries=len(wanted), problem=f"not a regular expression: {error}")
    return Reading(
        parameters=frozenset(name for matched in found.values() for name in matched),
        entries=len(wanted),
        unmatched=tuple(entry for entry, matched in found.items() if not matched),
    )


def _matching(pattern: re.Pattern[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if pattern.match(name)]


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
