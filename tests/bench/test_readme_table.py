"""The figures in README.md are those of a committed result file."""

from __future__ import annotations

import re
from pathlib import Path

from bench.markers import replace_between
from bench.readme_table import BEGIN, END, format_table
from bench.results_file import read_results

ROOT = Path(__file__).resolve().parents[2]


def test_readme_table_is_the_committed_result() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition(BEGIN)[2].partition(END)[0]
    source = re.search(r"`bench/results/([^`/]+)`", table)
    assert source, "the table names no result file"
    results = read_results(ROOT / "bench" / "results" / source[1])
    assert replace_between(readme, BEGIN, END, format_table(results, source[1])) == readme


def test_table_holds_the_measured_figures() -> None:
    results = {
        "machine": {
            "threads": 2,
            "cpu": {"model": "X", "family": 1, "model_number": 2, "native_features": ["avx512"]},
            "packages": {"torch": "2"},
        },
        "rows": [
            {"name": "spectrum[2048x2048]", "median_seconds": 0.1, "info": {"ratio_to_peer": 6.5}},
            {"name": "llama_layer", "median_seconds": 0.1, "info": {"peers": {"slow": 0.4, "slower": 0.9}}},
            {"name": "small_model", "median_seconds": 1.0, "info": {"peers": {"slower": 3.0, "slow": 2.0}}},
        ],
    }
    text = format_table(results, "x.json")
    assert "| spectrum_fast | slow | slower | float32 `svdvals` (the reference's way) |" in text
    assert "| 2048 x 2048 | 100 ms |  |  | 650 ms (6.5x) |" in text
    assert "| a Llama-3-8B layer, 7 matrices | 100 ms | 400 ms (4.0x) | 900 ms (9.0x) |  |" in text
    assert "avx512" in text
    assert "x.json" in text
