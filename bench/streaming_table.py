"""The tables of docs/streaming.md, made from committed result files so that no figure in it is typed by hand.

Usage: python -m bench.streaming_table    (rewrites them from bench/results/streaming-*.json)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.markers import replace_between
from bench.results_file import read_results

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "streaming.md"
BEGIN = "<!-- figures: written by `python -m bench.streaming_table`, checked by tests/bench/test_streaming_table.py -->"
END = "<!-- end of figures -->"
NOT_MEASURED = (
    "Not measured on a quiet machine yet: `python -m bench.streaming` measures, `python -m bench.streaming_table` puts "
    "the figures here."
)


def format_tables(paths: list[Path]) -> str:
    """One table for each result file, or a word that there is none."""
    return "\n\n".join(format_table(read_results(path), path.name) for path in paths) or NOT_MEASURED


def format_table(results: dict[str, Any], file_name: str) -> str:
    """Markdown: reading, computing and scanning, and how near the whole comes to the larger of its parts."""
    machine, rows = results["machine"], results["rows"]
    info = rows[0]["info"]
    cpu = machine["cpu"]
    lines = [
        f"{info['checkpoint_bytes'] / 1e9:.1f} GB of {info['like']} shapes, {info['matrices']} matrices, on "
        f"{machine['threads']} threads of {cpu['model']} (family {cpu['family']}, model {cpu['model_number']}); "
        f"medians, torch {machine['packages']['torch']}. Source: `bench/results/{file_name}`.",
        "",
        "| | seconds | GB/s | |",
        "|---|---|---|---|",
    ]
    for row in rows:
        found = row["info"].get("gigabytes_per_second")
        rate = "" if found is None else f"{found:.2f}"
        lines.append(f"| {_label(row)} | {row['median_seconds']:.2f} | {rate} | {_remark(row)} |")
    return "\n".join(lines)


def _label(row: dict[str, Any]) -> str:
    name: str = row["name"]
    if name.startswith("read["):
        reader, temperature = name.removeprefix("read[").removesuffix("]").split(", ")
        reader = {"plain": "plain sequential read", "ours": "our reader"}.get(reader, reader)
        version = row["info"].get("version")
        return f"{reader}{f' {version}' if version else ''}, {temperature}"
    if name.startswith("scan["):
        return f"whole scan, {name.removeprefix('scan[').removesuffix(']')}"
    if name == "compute":
        return "all spectra, weights in memory"
    return "float32 `svdvals` of every matrix (the reference's way)"


def _remark(row: dict[str, Any]) -> str:
    info = row["info"]
    if "rate_to_plain" in info:
        return f"{100 * info['rate_to_plain']:.0f} % of the plain rate"
    if "ratio_to_bound" in info:
        return (
            f"{info['ratio_to_bound']:.2f} x the larger of reading and computing; waited {info['wait_seconds']:.1f} s "
            f"for bytes; peak {info['peak_bytes'] / 1e6:.0f} MB, of it buffer {info['buffer_peak_bytes'] / 1e6:.0f} MB"
        )
    if "scaled" in info:
        return (
            f"{info['scaled']}; {info['scan_is_faster']:.0f} x the scan; would hold "
            f"{info['model_bytes_in_float32'] / 1e9:.0f} GB"
        )
    return ""


def result_files() -> list[Path]:
    """Committed results, in the order of the page."""
    return sorted((ROOT / "bench" / "results").glob("streaming-*.json"))


def main() -> int:
    """Rewrite the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_between(page, BEGIN, END, format_tables(result_files())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
