"""The figures in docs/trust.md are those of the committed campaigns, in which every bound held."""

from __future__ import annotations

from bench.bounds_table import BEGIN, END, PAGE, RESULTS, format_table
from bench.markers import replace_between
from bench.results_file import read_results


def test_the_page_shows_the_committed_campaigns() -> None:
    page = PAGE.read_text(encoding="utf-8")
    results = read_results(RESULTS)
    assert replace_between(page, BEGIN, END, format_table(results)) == page
    for campaign in results["campaigns"]:
        assert campaign["broken"] == 0
        assert all(row["largest_ratio"] <= 1 for row in campaign["rows"])


def test_a_row_holds_the_measured_figures() -> None:
    worst = {"family": "spiked", "shape": [3, 4], "method": "svd-float64"}
    row = {"engine": "auto", "criterion": "mp", "cases": 1200, "median_ratio": 0.0123, "p99_ratio": 0.5, "worst": worst}
    campaign = {"matrices": 1300, "sides": [1, 600], "broken": 2, "rows": [{**row, "largest_ratio": 0.75}]}
    campaign["machine"] = {"packages": {"torch": "2.13"}}
    text = format_table({"campaigns": [campaign]})
    assert "| 1,300, sides 1 to 600 | auto | mp | 1,200 | 0.012 | 0.5 | 0.75 | spiked 3 x 4, svd-float64 |" in text
    assert "1,300 matrices, 2 bounds that did not hold" in text
