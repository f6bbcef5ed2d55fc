"""The committed shares of noise above the edge are what the code measures, and bear out what the documents say."""

from __future__ import annotations

import json

import pytest

from bench.short_sides import PATH, row
from spectrum_fast.measure.scoring.criteria import CALIBRATED_SIDE

ROWS = json.loads(PATH.read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("shape", [(3, 768), (16, 4096), (24, 1536)])
def test_the_shares_are_measured_again(shape: tuple[int, int]) -> None:
    (kept,) = [one for one in ROWS if tuple(one["shape"]) == shape]
    found = row(*shape)
    assert found["runs"] == kept["runs"]
    assert found["mean"] == pytest.approx(kept["mean"], abs=2 / (kept["runs"] * min(shape)))


def test_the_stated_range_is_that_of_the_table() -> None:
    above = [one["mean"] + 2 * one["standard_error"] for one in ROWS if one["shape"][0] >= CALIBRATED_SIDE]
    below = [one["mean"] for one in ROWS if one["shape"][0] < CALIBRATED_SIDE]
    assert max(above) < 0.01
    assert max(below) == pytest.approx(0.082, abs=0.001)
    assert max(one["mean"] for one in ROWS if one["shape"][0] == 24) > 0.01
