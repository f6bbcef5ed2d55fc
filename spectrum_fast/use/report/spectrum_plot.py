"""The histogram of one spectrum in a terminal, with what pure noise would look like and where both thresholds lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from spectrum_fast.measure.scoring.marchenko_pastur import singular_value_density
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.use.report.thresholds import Thresholds

_ROWS = 12
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_MARGIN = 8
"""Columns for the numbers at the left."""
_NOISE, _SPECTRUM, _MP = "orange3", "magenta", "green"
_POINTS = 16
"""Points a bin for the integral of the noise curve."""


@dataclass(frozen=True)
class SpectrumPlot:
    """One column a bin: bars for what is there, dots for what pure noise of that shape would put there.

    Attributes:
        histogram: the counts.
        thresholds: both of them, None where the shape or the quantiles are not known.
    """

    histogram: Histogram
    thresholds: Thresholds | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        edges, counts = _fit(self.histogram, max(8, options.max_width - _MARGIN))
        noise = _expected(edges, int(counts.sum()), self.thresholds)
        marks = _threshold_columns(edges, self.thresholds)
        yield Text.assemble(" " * _MARGIN, *(marks.get(column, " ") for column in range(len(counts))))
        yield from _picture(counts, noise, marks, options.ascii_only)
        yield _axis(edges, self.histogram)
        yield from _legend(self.histogram, self.thresholds, marks, options.ascii_only)


@dataclass(frozen=True)
class ValuesPlot:
    """All singular values by rank, the largest first: one column a stretch of ranks, dots at the noise edge.

    Attributes:
        values: descending.
        edge: the Marchenko-Pastur edge; None where not known.
    """

    values: npt.NDArray[np.float64]
    edge: float | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = min(len(self.values), max(8, options.max_width - _MARGIN))
        heights = np.array([part.mean() for part in np.array_split(self.values, columns)])
        drawn = self.edge if self.edge is not None and self.edge < heights[0] else 0.0
        yield from _picture(heights, np.full(columns, drawn), {}, options.ascii_only)
        shown = "1", str(len(self.values))
        yield Text(" " * _MARGIN + shown[0] + shown[1].rjust(columns - 1))
        above = "" if self.edge is None else f"; {int((self.values > self.edge).sum())} above the Marchenko-Pastur edge"
        yield Text(f"all {len(self.values)} singular values by rank{above}")


def _fit(histogram: Histogram, room: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Edges and counts in at most ``room`` columns: neighbours are joined where there are more bins."""
    edges, counts = histogram.edges, np.array(histogram.counts, dtype=np.int64)
    joined = -(-len(counts) // room)
    starts = np.arange(0, len(counts), joined)
    return np.append(edges[:-1][starts], edges[-1]), np.add.reduceat(counts, starts)


def _expected(edges: npt.NDArray[np.float64], size: int, thresholds: Thresholds | None) -> npt.NDArray[np.float64]:
    """How many of ``size`` singular values of pure noise fall into each bin."""
    if thresholds is None or not thresholds.sigma > 0:
        return np.zeros(len(edges) - 1)
    fractions = (np.arange(_POINTS) + 0.5) / _POINTS
    widths = np.diff(edges)
    points = edges[:-1, None] + widths[:, None] * fractions
    density = singular_value_density(points, thresholds.sigma, thresholds.n_min, thresholds.n_max)
    return size * density.mean(axis=1) * widths


def _threshold_columns(edges: npt.NDArray[np.float64], thresholds: Thresholds | None) -> dict[int, tuple[str, str]]:
    """Column -> letter and colour of the threshold inside it."""
    if thresholds is None:
        return {}
    found: dict[int, tuple[str, str]] = {}
    for value, letter, colour in ((thresholds.spectrum, "S", _SPECTRUM), (thresholds.mp, "M", _MP)):
        column = int(np.searchsorted(edges, value, side="right")) - 1
        if 0 <= column < len(edges) - 1:
            found[column] = ("B", colour) if column in found else (letter, colour)
    return found


def _picture(
    heights: npt.NDArray[Any],
    noise: npt.NDArray[np.float64],
    marks: dict[int, tuple[str, str]],
    ascii_only: bool,
) -> RenderResult:
    """Bars as high as the largest of both, dots at the noise, and the line below."""
    top = max(float(heights.max()), float(noise.max())) or 1.0
    for row in range(_ROWS, 0, -1):
        value = top * row / _ROWS
        label = (f"{value:.0f}" if value >= 100 else f"{value:.3g}") if row in (_ROWS, _ROWS // 2) else ""
        line = Text(label.rjust(_MARGIN - 2) + (" |" if ascii_only else " │"))
        for column, height in enumerate(_ROWS * heights / top):
            level = int(np.clip(round(8 * (height - row + 1)), 0, 8))
            if height and row == 1:
                level = max(level, 1)  # one value among thousands is still to be seen
            if noise[column] > 0 and int(_ROWS * noise[column] / top) == row - 1:
                line.append("o" if ascii_only else "•", _NOISE)
            elif level == 0 and column in marks:
                line.append(":" if ascii_only else "┊", marks[column][1])
            elif ascii_only:
                line.append("#" if level >= 4 or (level and row == 1) else " ")
            else:
                line.append(_EIGHTHS[level])
        yield line
    yield Text(" " * (_MARGIN - 1) + ("+" + "-" * len(heights) if ascii_only else "└" + "─" * len(heights)))


def _axis(edges: npt.NDArray[np.float64], histogram: Histogram) -> Text:
    """The values at both edges, and between them, where there is room, that at the knee or in the middle."""
    columns = len(edges) - 1
    place, value = columns // 2, edges[columns // 2]
    if histogram.knee < histogram.end:
        place, value = int(np.argmin(np.abs(edges - histogram.knee))), histogram.knee
    line, middle, right = f"{histogram.start:.4g}", f"{value:.4g}", f"{histogram.end:.4g}"
    if len(line) < place and place + len(middle) + len(right) < columns:
        line = line.ljust(place) + middle
    return Text(" " * _MARGIN + f"{line} ".ljust(columns - len(right)) + right)


def _legend(
    histogram: Histogram, thresholds: Thresholds | None, marks: dict[int, tuple[str, str]], ascii_only: bool
) -> RenderResult:
    tail = "" if histogram.knee == histogram.end else f"; wider bins, of equal ratio, above {histogram.knee:.4g}"
    yield Text(f"singular values in each of {len(histogram.counts)} bins{tail}")
    if thresholds is None:
        yield Text("neither thresholds nor noise: the file does not tell the quantiles or the shape")
        return
    dot = "o" if ascii_only else "•"
    yield Text.assemble(
        ("S", _SPECTRUM),
        f" Spectrum rule {_place(thresholds.spectrum, histogram)}   ",
        ("M", _MP),
        f" Marchenko-Pastur edge {_place(thresholds.mp, histogram)}   ",
        (dot, _NOISE),
        " pure noise",
    )
    if "B" in {letter for letter, _ in marks.values()}:
        yield Text("B: both thresholds lie in one bin")


def _place(value: float, histogram: Histogram) -> str:
    """The threshold, and whether it lies outside the picture."""
    side = " (above all values)" if value > histogram.end else " (below all)" if value < histogram.start else ""
    return f"{value:.4g}{side}"
