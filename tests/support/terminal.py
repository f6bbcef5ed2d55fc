"""What a terminal of some width and encoding shows."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType


def render(renderable: RenderableType, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """Lines without colours and without the blanks at their ends."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, color_system=None).print(renderable)
    file.flush()
    return [line.rstrip() for line in raw.getvalue().decode(encoding).splitlines()]
