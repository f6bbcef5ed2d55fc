"""Where output goes: data to stdout, words for people to stderr. NO_COLOR and pipes are honoured by rich."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console, RenderableType

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.files import write_text_atomic

err = Console(stderr=True)
out = Console()
WIDE_COLUMNS = 120
"""From this width on, tables show names as well as figures."""


def show(renderable: RenderableType) -> None:
    """Write a table or text to stdout; in a pipe without the blanks that fill a terminal's lines.

    Raises:
        BrokenPipeError: nobody reads stdout any more.
    """
    with out.capture() as capture:
        out.print(renderable)
    text = capture.get()
    if not out.is_terminal:
        text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def say(text: str, style: str | None = None) -> None:
    """Write words for a person to stderr; one line each, but in a terminal lines break between words.

    Control characters are spelled out: words quote names from strangers' files.
    """
    from spectrum_fast.use.report.layout import printable  # tables are loaded once there is something to say

    lines = "\n".join(map(printable, text.split("\n")))
    err.print(lines, style=style, markup=False, emoji=False, highlight=False, soft_wrap=not err.is_terminal)


def hand_out(text: str, output: Path | None, error: type[SpectrumFastError]) -> None:
    """Write a result to the file that was named, and say so; or to stdout.

    Raises:
        SpectrumFastError: of class ``error``; the file cannot be written.
    """
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text_atomic(output, text, error=error)
        say(f"wrote {output}")
