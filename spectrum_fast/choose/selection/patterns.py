r"""Patterns on module names: shell style, or regular expressions after ``re:``.

``*`` matches any characters (dots too), ``?`` one, ``[0-9]`` a set, and the whole name must match:
``model.layers.0.*``, ``*.v_proj``. ``re:layers\.(0|1)\.`` is searched anywhere in the name; anchor it with ``^`` and
``$``. Case matters.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from spectrum_fast.errors import SelectionError, UsageError

REGEX_PREFIX = "re:"


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile one pattern; search it with ``.search``.

    Raises:
        UsageError: it is empty, or not a regular expression though it says so.
    """
    if not isinstance(pattern, str) or not pattern.removeprefix(REGEX_PREFIX):
        raise UsageError(f"expected a name pattern, found {pattern!r}")
    try:
        if pattern.startswith(REGEX_PREFIX):
            return re.compile(pattern.removeprefix(REGEX_PREFIX))
        return re.compile(r"\A" + fnmatch.translate(pattern))
    except re.error as cause:
        raise UsageError(f"pattern {pattern!r}: expected a regular expression after 're:', found {cause}") from cause


def match_patterns(patterns: Sequence[str], names: Sequence[str], purpose: str) -> set[str]:
    """Names that match at least one pattern.

    Args:
        patterns: see the module's docstring.
        names: all names that could match.
        purpose: how the user gave them, e.g. ``--include``, for messages.

    Raises:
        SelectionError: a pattern matches no name; the message lists near names.
        UsageError: a pattern is malformed, or ``patterns`` is one string instead of several.
    """
    if isinstance(patterns, str):
        raise UsageError(f"{purpose}: expected a list of patterns, found one text {patterns!r}")
    matched: set[str] = set()
    for pattern in patterns:
        compiled = compile_pattern(pattern)
        found = {name for name in names if compiled.search(name)}
        if not found:
            raise SelectionError(f"{purpose}: pattern {pattern!r} matches no module{near_names_text(pattern, names)}")
        matched |= found
    return matched


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
