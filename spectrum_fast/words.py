"""Figures and names in sentences."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> count_of(1, "entry", "entries"), count_of(2, "entry", "entries"), count_of(1200, "module")
    ('1 entry', '2 entries', '1,200 modules')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share_of_bytes(part: int, whole: int) -> str:
    """Two sizes in the unit that suits the larger one.

    >>> share_of_bytes(5 << 20, 12 << 20), share_of_bytes(3 << 30, 15 << 30), share_of_bytes(7, 900)
    ('5.00 of 12.00 MiB', '3.00 of 15.00 GiB', '7 of 900 bytes')
    """
    size, unit = _unit_of(whole)
    return f"{part} of {whole} bytes" if size == 1 else f"{part / size:.2f} of {whole / size:.2f} {unit}"


def size_of(count: float) -> str:
    """A size in the unit that suits it.

    >>> size_of(40 << 30), size_of(300_000), size_of(17)
    ('40.0 GiB', '293.0 KiB', '17 bytes')
    """
    size, unit = _unit_of(count)
    return f"{count:.0f} bytes" if size == 1 else f"{count / size:.1f} {unit}"


def _unit_of(count: float) -> tuple[int, str]:
    return next(((1 << shift, unit) for shift, unit in _UNITS if count >= 1 << shift), (1, "bytes"))


_UNITS = ((30, "GiB"), (20, "MiB"), (10, "KiB"))


def list_some(names: Sequence[str], limit: int = 8, show: Callable[[str], str] = str, between: str = ", ") -> str:
    """The first of many names for a message, and how many there are beside.

    >>> list_some(["a", "b", "c"], 2), list_some(["a", "b", "c"], 1, between="; ")
    ('a, b and 1 more', 'a; and 2 more')
    """
    shown = between.join(map(show, names[:limit]))
    end = " " if between == ", " else between
    return shown if len(names) <= limit else f"{shown}{end}and {len(names) - limit} more"


def nearest_names(name: str, names: Iterable[str], limit: int = 3, cutoff: float = 0.4) -> list[str]:
    """The names most like ``name``: those that share its last component first, else by similarity of the text.

    Args:
        name: what was looked for.
        names: what there is.
        limit: how many to give.
        cutoff: least similarity, in [0, 1]; of those with the same last component 0.6 or more.
    """
    known = list(dict.fromkeys(names))
    tail = name.rpartition(".")[2]
    same_tail = [other for other in known if other.rpartition(".")[2] == tail]
    close = difflib.get_close_matches(name, same_tail[:2000], n=limit, cutoff=max(cutoff, 0.6))
    return close or difflib.get_close_matches(name, known[:5000], n=limit, cutoff=cutoff)


def near_names_text(name: str, names: Iterable[str]) -> str:
    """``"; nearest: a, b, c"`` for the end of a message, or the empty text."""
    near = nearest_names(name, names)
    return f"; nearest: {', '.join(near)}" if near else ""
