"""The tables of docs/platforms.md, from results: what was tried where, what a matrix costs without the extension."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
TRIED_MARK = "<!-- what was tried -->"
INSTALLS_MARK = "<!-- what an installation takes -->"
WITHOUT_MARK = "<!-- what a matrix costs without the extension -->"
COLUMNS = ("x86_64", "aarch64", "pure")
"""Machines of the wheels with the extension, then the one without."""


def fill_in_platforms(markdown: str) -> str:
    """Put each table where a page has its mark."""
    for mark, table in ((TRIED_MARK, tried_table), (INSTALLS_MARK, installs_table), (WITHOUT_MARK, without_table)):
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def tried_table() -> str:
    """One line a Python, one column a kind of wheel, of ``platforms.json``; what was not run says why."""
    results = json.loads((RESULTS / "platforms.json").read_text(encoding="utf-8"))
    cells: dict[tuple[str, str], list[str]] = {}
    for row in results["rows"]:
        cells.setdefault(place(row), []).append(describe(row))
    for lack in results["not_run"]:
        cells.setdefault((lack["python"], lack["column"]), []).append(f"not run: {lack['why']}")
    lines = ["| Python | x86-64 | aarch64 | without the extension |", "|---|---|---|---|"]
    for python in sorted({python for python, _ in cells}, key=lambda version: int(version.partition(".")[2])):
        found = ("; ".join(cells.get((python, column), ["not run"])) for column in COLUMNS)
        lines.append(f"| {python} | {' | '.join(found)} |")
    commits = ", ".join(sorted({f"`{row['commit']}`" for row in results["rows"]}))
    return "\n".join([*lines, "", f"`python -m tools.tryout`, wheels of {commits}; `bench/results/platforms.json`."])


def installs_table() -> str:
    """One line an environment of its own: its size, and what pip needed for it."""
    results = json.loads((RESULTS / "platforms.json").read_text(encoding="utf-8"))
    lines = ["| Python | torch | installed | of it torch with its libraries | pip |", "|---|---|---|---|---|"]
    for row in results["installs"]:
        sizes = (f"{row[part] / 1000:.1f} GB" for part in ("megabytes", "torch_megabytes"))
        lines.append(f"| {row['python']} | {row['torch']} | {' | '.join(sizes)} | {row['processor_seconds']:.0f} s |")
    return "\n".join(lines)


def place(row: dict[str, Any]) -> tuple[str, str]:
    """Minor version of its Python, and column."""
    return row["python"].rpartition(".")[0], row["machine"] if row["extension"] else "pure"


def describe(row: dict[str, Any]) -> str:
    """One cell."""
    machine = "emulated aarch64, " if row["emulated"] else ""
    return (
        f"{machine}{row['python']}, torch {row['torch']}: `{row['wheel'].partition('-manylinux')[0]}` installed, "
        f"{row['modules']} of {row['modules']} matrices scanned, {row['processor_seconds']:g} s"
    )


def without_table() -> str:
    """One line a shape of ``without-extension.json``: processor seconds of each way, and the ratio without."""
    results = json.loads((RESULTS / "without-extension.json").read_text(encoding="utf-8"))
    lines = ["| float32 | with the extension | by the SVD | reduction in torch | at least |", "|---|---|---|---|---|"]
    for row in results["rows"]:
        seconds = " | ".join(f"{row[way]:.2f}" for way in ("extension", "svd", "reference"))
        slower = min(row["svd"], row["reference"]) / row["extension"]
        lines.append(f"| {row['name']} | {seconds} | {slower:.0f} times as long |")
    model = results["machine"]["cpu"]["model"]
    return "\n".join([*lines, "", f"`python -m bench.without_extension` on an {model}."])
