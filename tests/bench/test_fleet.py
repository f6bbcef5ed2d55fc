"""The model of a fleet: its arithmetic, its check against real parts, and the page that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.fleet import BEGIN, DEEPSEEK, DOWNLOADED, PAGE, ROOT, Model, Rates, measure, plans_of, simulate, with_section

RESULTS = sorted((ROOT / "bench" / "results").glob("fleet-*.json"))
SMALL = Model("m", {(1024, 1024): 64, (4096, 1024): 32})


def test_one_worker_takes_the_sum_and_many_no_less_than_their_share() -> None:
    plans = plans_of(SMALL)
    rates = Rates(seconds_of=lambda shape: shape[0] / 1024, start_seconds=5.0)
    alone = simulate([(1, plans)], 1, rates)
    assert alone.seconds == pytest.approx(5 + 64 + 4 * 32)
    assert alone.nbytes == 2 * 1024 * 1024 * (64 + 4 * 32)
    for workers in (2, 8, 96):
        run = simulate([(1, plans)], workers, rates)
        assert (alone.seconds - 5) / workers + 5 <= run.seconds <= (alone.seconds - 5) / workers + 5 + 4 * 2
        assert run.nbytes == alone.nbytes


def test_what_binds_is_what_takes_longest() -> None:
    plans, second = plans_of(SMALL), 2 * 1024 * 1024.0
    slow = Rates(lambda _: 1e-3, 0.0, bytes_per_second=second)
    assert simulate([(1, plans)], 1, slow).binds == "reading"
    assert simulate([(1, plans)], 1, slow).seconds == pytest.approx(64 + 4 * 32)
    shared = Rates(lambda _: 1e-3, 0.0, source_bytes_per_second=second)
    assert simulate([(1, plans)], 8, shared).seconds >= 64 + 4 * 32 - 1e-9, "a source is no faster for many"
    assert simulate([(1, plans)], 1, Rates(lambda _: 1.0, 0.0)).binds == "computing"
    assert simulate([(50, plans[:1])], 4, Rates(lambda _: 1.0, 60.0)).binds == "starting"
    assert simulate([(1, plans[:1])], 4, Rates(lambda _: 1.0, 0.0)).binds == "the largest chunk"


def test_the_table_is_a_thousand_models_and_deepseek_is_what_it_is() -> None:
    assert sum(count for count, _ in DOWNLOADED) == 1000
    values = sum(rows * columns * count for (rows, columns), count in DEEPSEEK.shapes.items())
    assert values == pytest.approx(671e9, rel=0.002)
    assert DEEPSEEK.shapes[2048, 7168] == 58 * 257 * 2


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_model_is_within_15_percent_of_real_parts(path: Path) -> None:
    workers = json.loads(path.read_text())["fleet"]["workers"]
    assert set(workers) == {"1", "2", "4"}
    for row in workers.values():
        assert row["predicted_seconds"] == pytest.approx(row["measured_seconds"], rel=0.15)


@pytest.mark.slow
def test_the_page_is_made_of_the_results() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == 1
    assert page == with_section(page), "write it anew: python -m bench.fleet"


@pytest.mark.slow
def test_measuring_fills_every_field() -> None:
    found = measure(1, layers=1, scale=16)
    assert set(found["workers"]) == {"1", "2", "4"}
    assert all(len(row["measured_parts"]) == int(count) for count, row in found["workers"].items())
    assert min(found["matrix_seconds"].values()) > 0
    assert found["start_seconds"] > 0
