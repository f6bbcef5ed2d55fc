"""The pages' tables of large shapes are those of the committed results, and what is measured is what is said."""

from __future__ import annotations

import json

import pytest
import torch

from bench.large_shapes import BEGIN, END, PAGES, PASS, RESULTS, format_table, measure_factors, measure_values


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_has_the_committed_figures(kind: str) -> None:
    shown = PAGES[kind].read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == format_table(json.loads(RESULTS.read_text()), kind), "write it: python -m bench.large_shapes table"


def test_a_small_matrix_is_measured_the_same_way() -> None:
    pytest.importorskip("peft")
    weight = torch.randn(200, 200, generator=torch.Generator().manual_seed(0)).bfloat16()
    values, factors = measure_values(weight, 1), measure_factors(weight, 1)
    assert values["largest_difference"] < 1e-5
    assert len(values["seconds"]) == 6
    assert factors["error_over_ours"][PASS] == 1
    assert all(0.99 < one < 1.1 for one in factors["error_over_ours"].values())
