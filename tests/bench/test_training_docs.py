"""Pages about training hold the figures of committed results, and the study's arithmetic is right."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="needs the training libraries")

from bench.training.docs import pages
from bench.training.quality_study import SIZES, choose, scans_of, study, summarise


def test_pages_are_those_of_the_committed_results() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, f"run python -m bench.training.docs for {path.name}"


def test_differences_are_paired_by_seed() -> None:
    values = {("random", 0): 1.0, ("random", 1): 2.0, ("spectrum", 0): 0.9, ("spectrum", 1): 2.3}
    runs = [
        {"choice": choice, "percent": 25, "seed": seed, "trained_fraction": 0.2, "loss_new": loss, "loss_old": loss}
        for (choice, seed), loss in values.items()
    ]
    row = next(row for row in summarise(runs) if row["choice"] == "spectrum")
    assert row["against_random"]["mean"] == pytest.approx(0.1)
    assert row["against_random"]["sd"] == pytest.approx(0.2 * 2**0.5)
    assert (row["against_random"]["lower_in"], row["against_random"]["of"]) == (1, 2)
    assert row["loss_new"]["mean"] == pytest.approx(1.6)


def test_choices_train_as_much_and_something_else() -> None:
    from bench.training.quality_study import make_base, split, texts

    size = {**SIZES["small"], "pretrain": 1}
    base = make_base(size, split(texts()["code"])[0])
    scans = scans_of(base)
    chosen = {choice: choose(base, scans, choice, 25, 0) for choice in ("spectrum", "bottom", "random")}
    assert len({value["fraction"] for value in chosen.values()}) == 1
    assert not set(chosen["spectrum"]["modules"]) & set(chosen["bottom"]["modules"])
    assert len({tuple(sorted(value["modules"])) for value in chosen.values()}) == 3


@pytest.mark.slow
def test_a_study_is_the_same_twice() -> None:
    first, second = (study(SIZES["small"], seeds=(0, 1)) for _ in range(2))
    assert first["runs"] == second["runs"]
    assert first["summary"] == second["summary"]
