"""Code blocks of the documentation: found, and run as a reader would run them.

A fenced block is run unless an HTML comment on the line before says why not: ``<!-- not run: reason -->``, or
``<!-- slow: reason -->`` for the slow tests. ``python`` blocks of one page share their names, in order; ``sh`` blocks
run in the same folder in between. Output and other text is fenced as ``text``; ``yaml`` and ``json`` are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON = ("python", "py")
SHELL = ("sh", "bash", "shell", "console")
DATA = ("yaml", "json", "toml")
PROSE = ("text", "ini", "mermaid", "html", "diff")

_FENCE = re.compile(r"^( *)(```+|~~~+) *([\w+-]*)[^\n`]*$")
_MARK = re.compile(r"^<!-- *(not run|slow): *(.+?) *-->$")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``mark`` is ``not run``, ``slow`` or empty, ``line`` counts from 1."""

    page: str
    line: int
    language: str
    code: str
    mark: str
    reason: str


def read_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    position = 0
    while position < len(lines):
        fence = _FENCE.match(lines[position])
        if fence is None:
            position += 1
            continue
        indent, ticks, language = fence.groups()
        start = position
        body = []
        position += 1
        while position < len(lines) and lines[position].strip() != ticks:
            body.append(lines[position].removeprefix(indent))
            position += 1
        assert position < len(lines), f"{path.name}:{start + 1}: the block is never closed"
        position += 1
        before = next((line.strip() for line in reversed(lines[:start]) if line.strip()), "")
        mark = _MARK.match(before)
        code = "\n".join(body) + "\n"
        kind, reason = mark.groups() if mark else ("", "")
        yield Block(path.name, start + 1, language.lower(), code, kind, reason)


def commands_only(code: str) -> list[str] | None:
    """The commands of a block of plain ``spectrum-fast`` and ``mkdir -p`` lines; None if it needs a shell."""
    joined = re.sub(r"\\\n\s*", " ", code)
    lines = [line.partition("  #")[0].strip() for line in joined.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    plain = all(re.fullmatch(r"(spectrum-fast|mkdir -p) [^|<>&;$`]+", line) for line in lines)
    return lines if plain else None


def indented_code(path: Path) -> list[int]:
    """Lines (from 1) that begin a block of code by indentation; text under a list's item is none."""
    found = []
    in_fence, in_list, blank = False, False, True
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if _FENCE.match(line):
            in_fence = not in_fence
        elif not in_fence and line.strip():
            if re.match(r" *([-*+]|[0-9]+[.)]) ", line):
                in_list = True
            elif not line.startswith(" "):
                in_list = False
            if blank and line.startswith("    ") and not in_list:
                found.append(number)
        blank = not line.strip() or (blank and in_fence)
    return found
