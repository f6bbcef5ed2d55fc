"""The page that draws benchmark results over time, from ``bench/history.json``."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from bench.history import read_history
from tools.docs.performance_page import seconds
from tools.docs.svg import BLUE, GREEN, ORANGE, RED, legend, new_figure, svg_text

HEAD = """# Benchmarks over time

Made from `bench/history.json`, which `make bench` keeps (`python -m bench.history` collects it again from git). A run
is compared with the committed one of the same machine, and what moved beyond noise is printed: twice the sum of both
inter-quartile ranges, and at least 5 % (15 % for rows of fewer than three rounds). The two streaming runs read models
of different sizes, 1.3 GB and 7.9 GB: their times are not to be compared.
"""

_SHOWN = 8
_COLOURS = (BLUE, ORANGE, GREEN, RED, "#8e6bbf", "#8c6d4f", "#c76fae", "#7f8790")


def history_page() -> tuple[str, dict[str, str]]:
    """Markdown of the page, and its pictures by name."""
    parts, pictures = [HEAD], {}
    for file, group in groupby(read_history(), key=lambda run: run["file"]):
        runs = list(group)
        parts += [f"## {file}", ""]
        if len(runs) > 1:
            picture = f"assets/history-{file.removesuffix('.json').replace('/', '-')}.svg"
            pictures[picture] = _draw(runs)
            parts += [f"![Median times of the runs of {file}]({picture})", ""]
        parts += [*_table(runs), ""]
    return "\n".join(parts), pictures


def _draw(runs: list[dict[str, Any]]) -> str:
    """Median of each row, run after run, as a share of the first run's."""
    names = list(dict.fromkeys(name for run in runs for name in run["rows"]))
    figure, axes = new_figure(7.2, 3.0)
    axis = axes[0][0]
    labels = [run["date"] for run in runs]
    for name, colour in zip(names[:_SHOWN], _COLOURS, strict=False):
        times = [run["rows"].get(name, {}).get("median_seconds") for run in runs]
        first = next(time for time in times if time is not None)
        points = [(place, time / first) for place, time in enumerate(times) if time is not None]
        axis.plot(*zip(*points, strict=True), "o-", color=colour, ms=4, lw=1.2, label=name)
    axis.set_xticks(range(len(labels)), labels)
    axis.set(ylabel="median time / that of the first run", ylim=(0, None), xlim=(-0.5, len(runs) - 0.5))
    axis.axhline(1, color="#7f8790", lw=0.6, ls=":")
    legend(axis, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg_text(figure)


def _table(runs: list[dict[str, Any]]) -> list[str]:
    """Every row, the last runs side by side."""
    shown = runs[-5:]
    heads = [f"{run['date']} `{run['commit'][:7]}`" for run in shown]
    lines = [f"| benchmark | {' | '.join(heads)} |", "|---|" + "---|" * len(shown)]
    for name in dict.fromkeys(name for run in shown for name in run["rows"]):
        cells = [seconds(run["rows"][name]["median_seconds"]) if name in run["rows"] else "" for run in shown]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines
