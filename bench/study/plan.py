"""The runs in their order, and how a learning rate is chosen. Pure: from what is finished, what is next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.study.conditions import CONDITIONS, CONTROLLED, MATCHED, RATE_SEED, SEARCH, Matrix, choose, rates_of
from bench.study.fine_tune import Run

SEEDS = (0, 1, 2)
DRAWS = 20

STAGES = (("full",), MATCHED, tuple(name for name in CONDITIONS if name not in ("full", *MATCHED)), SEARCH)
"""``full`` first, since its gain over the spread of its seeds says whether the runs are long enough."""

Finished = Sequence[Mapping[str, Any]]


def next_runs(text: str, matrices: Sequence[Matrix], finished: Finished) -> Iterator[Run]:
    """What is still to do on a text, in the order of the protocol.

    Of every stage the learning rates come first; then seed 0 of its conditions, so that every row has a figure; then
    the matched draws, one of each model in turn; then the other seeds. A run whose learning rate is not yet chosen is
    not there.
    """
    done = {_key(run) for run in finished if run["text"] == text}
    for run in _all_runs(text, matrices, finished):
        if _key(vars(run)) not in done:
            yield run


def chosen_rate(finished: Finished, text: str, condition: str, matched: bool) -> float | None:
    """The rate of the lowest loss on the part that is kept for choosing; None until all three are there."""
    runs = [
        run
        for run in finished
        if run["chooses_rate"]
        and (run["text"], run["condition"], run["draw"] is not None) == (text, condition, matched)
    ]
    if {run["rate"] for run in runs} != set(rates_of(condition)):
        return None
    return min(runs, key=lambda run: run["loss_new"])["rate"]


def _all_runs(text: str, matrices: Sequence[Matrix], finished: Finished) -> Iterator[Run]:
    first, *others = SEEDS
    for conditions in STAGES:
        matched = [condition for condition in conditions if condition in CONTROLLED]
        for condition, draw in [(name, None) for name in conditions] + [(name, RATE_SEED) for name in matched]:
            modules = tuple(choose(matrices, condition, draw, RATE_SEED))
            for rate in rates_of(condition):
                yield Run(text, condition, RATE_SEED, rate, modules, draw, chooses_rate=True)
        yield from _of_conditions(text, matrices, finished, conditions, [first])
        for draw in range(DRAWS):
            for condition in matched:
                if rate := chosen_rate(finished, text, condition, matched=True):
                    modules = tuple(choose(matrices, condition, draw, first))
                    yield Run(text, condition, first, rate, modules, draw)
        yield from _of_conditions(text, matrices, finished, conditions, others)


def _of_conditions(
    text: str, matrices: Sequence[Matrix], finished: Finished, conditions: Sequence[str], seeds: Sequence[int]
) -> Iterator[Run]:
    for seed in seeds:
        for condition in conditions:
            if rate := chosen_rate(finished, text, condition, matched=False):
                yield Run(text, condition, seed, rate, tuple(choose(matrices, condition, None, seed)))


def _key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return (run["condition"], run["draw"], run["seed"], run["rate"])
