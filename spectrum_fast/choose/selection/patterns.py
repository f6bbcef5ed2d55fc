r"""Patterns on module names: shell style, or regular expressions after ``re:``.

``*`` matches any characters (dots too), ``?`` one, ``[0-9]`` a set, and the whole name must match:
``model.layers.0.*``, ``*.v_proj``. ``re:layers\.(0|1)\.`` is searched anywhere in the name; anchor it with ``^`` and
``$``. Case matters.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.words import near_names_text

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

    ``purpose`` is how the user gave them, e.g. ``--include``, for messages.

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
