"""The table of docs/platforms.md: what was tried where, from the committed result."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
TRIED_MARK = "<!-- what was tried -->"


def fill_in_platforms(markdown: str) -> str:
    """Put the table where a page has its mark."""
    return markdown.replace(TRIED_MARK, tried_table()) if TRIED_MARK in markdown else markdown


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
