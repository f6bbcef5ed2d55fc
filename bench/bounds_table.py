"""The table of docs/trust.md that says how near errors came to their stated bounds, made from the committed campaigns.

Usage: python -m bench.bounds_table    (rewrites the table after `make bounds`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.markers import replace_between
from bench.results_file import read_results

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "trust.md"
RESULTS = ROOT / "bench" / "results" / "error-bounds.json"
BEGIN = "<!-- bounds table: written by `python -m bench.bounds_table`, checked by tests/bench/test_bounds_table.py -->"
END = "<!-- end of bounds table -->"


def format_table(results: dict[str, Any]) -> str:
    """Markdown: a row for each campaign, engine and criterion, and one for each family."""
    lines = [
        "| matrices | engine | rule | scores | error / bound: median | 99 % | largest | of |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for campaign in results["campaigns"]:
        smallest, largest = campaign["sides"]
        sides = f"{campaign['matrices']:,}, sides {smallest} to {largest}"
        for row in campaign["rows"]:
            worst = row["worst"]
            of = f"{worst['family']} {worst['shape'][0]} x {worst['shape'][1]}, {worst['method']}" if worst else "-"
            ratios = (f"{row[key]:.2g}" for key in ("median_ratio", "p99_ratio", "largest_ratio"))
            cells = [sides, row["engine"], row["criterion"], f"{row['cases']:,}", *ratios, of]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_by_family(results["campaigns"])]
    drawn = sum(campaign["matrices"] for campaign in results["campaigns"])
    broken = sum(campaign["broken"] for campaign in results["campaigns"])
    torch = results["campaigns"][-1]["machine"]["packages"]["torch"]
    source = f"torch {torch}. Source: `bench/results/{RESULTS.name}`."
    return "\n".join([*lines, "", f"{drawn:,} matrices, {broken} bounds that did not hold. {source}"])


def _by_family(campaigns: list[dict[str, Any]]) -> list[str]:
    """A row for each family: where it came nearest to a bound under ``auto``, and where it did under any engine."""
    nearest: dict[tuple[str, bool], dict[str, Any]] = {}
    for case in (case for campaign in campaigns for case in campaign.get("worst_by_family", {}).values()):
        for only_auto in {case["engine"] == "auto", False}:
            key = case["family"], only_auto
            if key not in nearest or case["ratio"] >= nearest[key]["ratio"]:
                nearest[key] = case

    def cell(family: str, *, auto: bool) -> str:
        case = nearest.get((family, auto))
        return "-" if case is None else f"{case['ratio']:.2g} ({case['method']})"

    lines = ["| family | largest error / bound under `auto` | by any engine |", "|---|---|---|"]
    return lines + [
        f"| {family} | {cell(family, auto=True)} | {cell(family, auto=False)} |"
        for family in sorted({family for family, _ in nearest})
    ]


def main() -> None:
    """Rewrite the table."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_between(page, BEGIN, END, format_table(read_results(RESULTS))), encoding="utf-8")


if __name__ == "__main__":
    main()
