"""The options of a function as a table, from their declaration."""

from __future__ import annotations

import inspect
import re

_MARK = re.compile(r"<!-- options: ([\w.]+)\.(\w+) -->")
"""Where a table goes: the module and the class of the options."""


def fill_in_options(markdown: str) -> str:
    """The page with a table in place of each ``<!-- options: MODULE.CLASS -->``."""
    import importlib

    return _MARK.sub(lambda found: options_table(getattr(importlib.import_module(found[1]), found[2])), markdown)


def options_table(options: type) -> str:
    """One row an option: name, type, default, meaning."""
    from spectrum_fast.options import describe, options_of

    rows = ["| keyword | type | default | meaning |", "|---|---|---|---|"]
    for parameter, option in options_of(options):
        kind = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", inspect.formatannotation(parameter.annotation)).replace("|", "\\|")
        meaning = describe(option).replace("``", "`").replace("|", "\\|").replace("*", "\\*")
        rows.append(f"| `{parameter.name}` | `{kind}` | `{parameter.default!r}` | {meaning} |")
    return "\n".join(rows)
