"""The tables of docs/platforms.md, from committed results: what was tried where, and what the extension is worth."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
TRIED_MARK = "<!-- what was tried -->"
COST_MARK = "<!-- cost without the extension -->"


def fill_in_platforms(markdown: str) -> str:
    """Put the tables where a page has their marks."""
    for mark, table in ((TRIED_MARK, tried_table), (COST_MARK, cost_table)):
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def tried_table() -> str:
    """One line a wheel that was installed and run, of ``platforms.json``."""
    rows = json.loads((RESULTS / "platforms.json").read_text(encoding="utf-8"))["rows"]
    lines = ["| Python | machine | wheel | torch | scanned | processor time |", "|---|---|---|---|---|---|"]
    for row in rows:
        machine = row["machine"] + (", emulated" if row["emulated"] else "")
        wheel = f"`{row['wheel']}`" + ("" if row["extension"] else " (no extension)")
        scanned = f"{row['modules']} of {row['modules']} matrices"
        lines.append(
            f"| {row['python']} | {machine} | {wheel} | {row['torch']} | {scanned} | {row['processor_seconds']:g} s |"
        )
    return "\n".join([*lines, "", "`python -m tools.tryout`, `bench/results/platforms.json`."])


def cost_table() -> str:
    """Seconds a matrix by each way, of ``without-extension.json``."""
    rows = json.loads((RESULTS / "without-extension.json").read_text(encoding="utf-8"))["rows"]
    lines = ["| float32 | with the extension | by the SVD | reduction in torch |", "|---|---|---|---|"]
    for row in rows:
        times = " | ".join(f"{row[way]:.2g} s" for way in ("extension", "svd", "reference"))
        lines.append(f"| {row['name']} | {times} |")
    return "\n".join([*lines, "", "`python -m bench.without_extension`, `bench/results/without-extension.json`."])
