"""SVG files that read well on a light and on a dark page, and whose bytes depend on the data alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#123456"
"""Stands for the colour of text and axes, which the page's scheme decides."""
BLUE, ORANGE, GREEN, RED = "#3b82c4", "#d9822b", "#3c9d5f", "#cc4b4b"
"""Legible on white and on near-black alike."""

_STYLE = "<style>svg{--ink:#2b2b2b}@media (prefers-color-scheme:dark){svg{--ink:#d6d6d6}}</style>"


_MEASURED_FONT = "DejaVu Sans"
"""matplotlib's own; what a reader sees is the page's sans-serif, of about the same width."""


def new_figure(width: float, height: float, columns: int = 1, ratios: Sequence[float] | None = None):
    """A figure and its axes, in inches, with the ink colour for everything that is not data."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "spectrum_fast",
            "font.family": _MEASURED_FONT,
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        }
    )
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", width_ratios=ratios, squeeze=False)


def legend(axes: Axes, **options: object) -> None:
    """A legend without frame."""
    options |= {"frameon": False, "fontsize": 8}
    axes.legend(**options)  # pyright: ignore[reportArgumentType, reportCallIssue]


def svg_text(figure: Figure) -> str:
    """The figure as text; closes it."""
    import matplotlib.pyplot as plt

    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = stream.getvalue().replace(INK, "var(--ink)").replace(f"'{_MEASURED_FONT}'", "sans-serif")
    head, _, rest = text.partition("<defs>")
    lines = f"{head}{_STYLE}\n <defs>{rest}".splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def write_svg(figure: Figure, path: Path) -> None:
    """Write the figure as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg_text(figure), encoding="utf-8")
