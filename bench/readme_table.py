"""The speed table of README.md, made from a committed result file so that no figure in it is typed by hand.

Usage: python -m bench.readme_table RESULTS.json    (rewrites the table in README.md)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.markers import replace_between
from bench.results_file import read_results

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- speed table: written by `python -m bench.readme_table`, checked by tests/bench/test_readme_table.py -->"
END = "<!-- end of speed table -->"

KNOWN_ROWS = {
    "spectrum[2048x2048]": "2048 x 2048",
    "spectrum[4096x4096]": "4096 x 4096",
    "spectrum[1024x4096]": "1024 x 4096",
    "spectrum[4096x14336]": "4096 x 14336",
    "spectrum[2048x7168]": "2048 x 7168",
    "llama_layer": "a Llama-3-8B layer, 7 matrices",
    "small_model": "SmolLM2-135M, 210 matrices, a whole scan",
}
"""Rows that a reader recognises, in their words."""


def format_table(results: dict[str, Any], file_name: str) -> str:
    """Markdown: our time and that of each peer for the rows that a reader recognises, and the conditions."""
    rows = {row["name"]: row for row in results["rows"]}
    known = {label: rows[name] for name, label in KNOWN_ROWS.items() if name in rows}
    peers = strongest_first(known.values())
    lines = [
        f"| bfloat16 weights | spectrum_fast | {' | '.join(peers)} |",
        "|---|---|" + "---|" * len(peers),
    ]
    for label, row in known.items():
        ours, taken = row["median_seconds"], peers_of(row)
        cells = [f"{_seconds(taken[peer])} ({taken[peer] / ours:.1f}x)" if peer in taken else "" for peer in peers]
        lines.append(f"| {label} | {_seconds(ours)} | {' | '.join(cells)} |")
    machine, cpu = results["machine"], results["machine"]["cpu"]
    sets = ", ".join(cpu["native_features"])
    processor = f"{cpu['model']} (family {cpu['family']}, model {cpu['model_number']}; {sets})"
    lines += [
        "",
        f"Medians, {machine['threads']} threads of {processor}, torch {machine['packages']['torch']}, both sides "
        "interleaved in one run. Every score was within 1e-4 of float64 truth before it was timed. "
        f"Source: `bench/results/{file_name}`.",
    ]
    if "scan" in rows:
        info = rows["scan"]["info"]
        lines += [
            "",
            f"A whole scan of a {info['checkpoint_bytes'] / 1e9:.1f} GB checkpoint ({info['like']} shapes, "
            f"{info['modules']} matrices) took {_seconds(info['scan_seconds'])} and "
            f"{info['peak_bytes'] / 1e6:.0f} MB of memory at its peak on the same machine.",
        ]
    return "\n".join(lines)


def strongest_first(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the peers of these rows, by the least that ours is faster than each (mean of the ratios' logarithms)."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        for peer, seconds in peers_of(row).items():
            ratios.setdefault(peer, []).append(math.log(seconds / row["median_seconds"]))
    return sorted(ratios, key=lambda peer: fmean(ratios[peer]))


def peers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each peer; files from before there were several have the reference alone."""
    info, reference = row["info"], "float32 `svdvals` (the reference's way)"
    return info.get("peers") or {reference: row["median_seconds"] * info["ratio_to_peer"]}


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def main(arguments: list[str]) -> None:
    """Rewrite the table."""
    path = Path(arguments[0])
    readme = ROOT / "README.md"
    table = format_table(read_results(path), path.name)
    readme.write_text(replace_between(readme.read_text(encoding="utf-8"), BEGIN, END, table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
