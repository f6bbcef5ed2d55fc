"""A sample of the kills in the common suite, all of them in ``pytest -m slow``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.faults import build_injector
from support.forked import Forked
from trust.kills import Kills

SAMPLE = ("scan resumed", "scans add", "laser")


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    words, folder = tmp_path_factory.mktemp("words"), tmp_path_factory.mktemp("killed")
    with Forked(build_injector(words), words) as forked:
        yield Kills(forked, folder)


def test_killed_anywhere_nothing_is_half_written(kills: Kills) -> None:
    plan = kills.plan(timed=0, tasks=SAMPLE)
    for strike in plan[:: len(plan) // 16]:
        kills.strike(strike)
    assert kills.counts["struck"] >= 12


@pytest.mark.slow
def test_every_command_killed_at_every_call(kills: Kills) -> None:
    for strike in kills.plan(timed=120):
        kills.strike(strike)
    print(dict(kills.counts))
    assert kills.counts["struck"] >= 300
