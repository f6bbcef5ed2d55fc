"""The committed calibration is what the code measures."""

from __future__ import annotations

import json

import pytest

from bench.calibration import PATH, SEEDS, noise_row, planted_row, scale_row


@pytest.fixture(scope="module")
def committed() -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(PATH.read_text(encoding="utf-8"))["rows"]}


@pytest.mark.parametrize("shape", [(64, 1024), (256, 1024)])
def test_shares_of_noise(committed: dict[str, dict], shape: tuple[int, int]) -> None:
    row = noise_row(shape, SEEDS)
    for rule, share in committed[row["name"]]["mean"].items():
        assert row["mean"][rule] == pytest.approx(share, abs=2 / (len(SEEDS) * min(shape)))


def test_planted_signal_and_scale(committed: dict[str, dict]) -> None:
    row = planted_row((256, 1024), SEEDS)
    assert row["mean"] == pytest.approx(committed[row["name"]]["mean"], abs=0.5)
    for factor in (0.1, 10.0):
        row = scale_row(factor)
        assert row["mean"] == pytest.approx(committed[row["name"]]["mean"], rel=1e-3)
