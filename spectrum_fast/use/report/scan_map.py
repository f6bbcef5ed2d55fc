"""A scan at one glance in a terminal: layer by module type, shaded by rank, and the layers that lead and trail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.choose.selection.presented_scan import SHADES, places_by_layer, shade
from spectrum_fast.choose.selection.ranking import group_modules, rank_modules, towers_of
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint.naming import expert_index, layer_index
from spectrum_fast.use.report.layout import add_row, page, plain_table, printable

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = ".:-=+*#@"
_MOST_ROWS = 24
_LABEL = 30
_NAMED = 3


def scan_map(scan: Scan, selection: Selection | None = None) -> RenderableType | None:
    """A map for each tower, and the leading and trailing layers of each type; None if no type is in two layers."""
    fused = (selection.fused if selection is not None else None) or "parts"
    towers = _rows_by_tower(scan, competing_modules(scan, fused))
    if not towers:
        return None
    maps = [RankMap(rows[:_MOST_ROWS], len(rows), tower if len(towers) > 1 else None) for tower, rows in towers.items()]
    shown = [row for each in maps for row in each.rows]
    return page(*(part for each in maps for part in ("", each)), "", _extremes(shown))


@dataclass(frozen=True)
class MapRow:
    """One module type: its modules best first, and the mean rank of each layer, 0 for the last and 1 for the first."""

    name: str
    ranked: tuple[ModuleScore, ...]
    by_layer: dict[int, float]


def _rows_by_tower(scan: Scan, modules: Iterable[ModuleScore]) -> dict[str, list[MapRow]]:
    tower_of = towers_of(scan)
    in_layers = [module for module in modules if layer_index(module.name) is not None]
    towers: dict[str, list[MapRow]] = {}
    for name, members in group_modules(in_layers, "experts-merged", tower_of).items():
        ranked = rank_modules(members)
        places = places_by_layer(ranked)
        if len(places) > 1:
            towers.setdefault(tower_of[ranked[0].name], []).append(MapRow(name, tuple(ranked), places))
    return towers


@dataclass(frozen=True)
class RankMap:
    """Draws the map in the width there is; several layers share a column where there are more layers than columns."""

    rows: Sequence[MapRow]
    n_types: int
    tower: str | None
    """By which it is told apart from other maps, where there are any."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = _ASCII if options.ascii_only else _BLOCKS
        label = min(_LABEL, max(len(printable(row.name)) for row in self.rows), options.max_width // 2)
        first = min(min(row.by_layer) for row in self.rows)
        layers = max(max(row.by_layer) for row in self.rows) - first + 1
        a_column = max(1, math.ceil(layers / max(8, options.max_width - label - 2)))
        columns = math.ceil(layers / a_column)
        share = "" if a_column == 1 else f", {a_column} layers a column"
        which = f"{self.tower}: " if self.tower is not None else ""
        yield Text(f"{which}rank within its type by layer: {marks[0]} last, {marks[-1]} first{share}")
        for row in self.rows:
            line = Text(_clip(printable(row.name), label, options.ascii_only).ljust(label + 2))
            for column in range(columns):
                line.append(*_mark(row, first + column * a_column, a_column, marks))
            yield line
        yield Text(" " * (label + 2) + _ruler(first, columns, a_column))
        if self.n_types > len(self.rows):
            yield Text(f"and {self.n_types - len(self.rows)} more types; `spectrum-fast report` shows all")


def _mark(row: MapRow, start: int, count: int, marks: str) -> tuple[str, str]:
    """The character and the colour of one column; a blank where no layer of it has a score."""
    inside = [row.by_layer[layer] for layer in range(start, start + count) if layer in row.by_layer]
    if not inside:
        return " ", ""
    level = shade(math.fsum(inside) / len(inside))
    return marks[level], SHADES[level]


def _ruler(first: int, columns: int, a_column: int) -> str:
    """Layer numbers under the columns, as many as there is room for."""
    line = ""
    for column in range(columns):
        number = str(first + column * a_column)
        if (first + column * a_column) % (5 * a_column if columns < 60 else 10 * a_column) == 0 and column >= len(line):
            line = line.ljust(column) + number + " "
    return line.rstrip()


def _clip(text: str, room: int, ascii_only: bool) -> str:
    """The end of a name, which tells types apart, in ``room`` columns."""
    if len(text) <= room:
        return text
    dots = ".." if ascii_only else "…"
    return dots + text[len(text) - room + len(dots) :]


def _extremes(rows: Sequence[MapRow]) -> Table:
    """The first and the last modules of each type by their layers; the table of scores has the scores."""
    experts = any(expert_index(module.name) is not None for row in rows for module in row.ranked)
    what = "layer:expert" if experts else "layers"
    best, worst = f"best {what}", f"worst {what}"
    table = plain_table("type", best, worst, words=(best, worst))
    for row in rows:
        named = min(_NAMED, len(row.ranked) // 2) or 1
        add_row(table, row.name, _places(row.ranked[:named]), _places(row.ranked[: -named - 1 : -1]))
    return table


def _places(modules: Iterable[ModuleScore]) -> str:
    experts = ((layer_index(module.name), expert_index(module.name)) for module in modules)
    return ", ".join(str(layer) if expert is None else f"{layer}:{expert}" for layer, expert in experts)
