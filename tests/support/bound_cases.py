"""Many matrices held to their stated bounds: cases that can be drawn again, and what they came to."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from support import bounds, families

WORST_CASES = Path(__file__).parents[1] / "measure" / "spectra" / "worst_cases.json"
"""The matrices that came nearest to their bounds in a campaign (``tests/measure/spectra/campaign.py``)."""


@dataclass(frozen=True)
class Case:
    """A matrix that can be drawn again, and what one engine made of it.

    Attributes:
        engine: one of :data:`bounds.EVERY_ENGINE`.
        criterion: one of :data:`bounds.CRITERIA`.
        family: of the matrix.
        seed: of it.
        smallest: range of its sides, as it was drawn.
        largest: the other end.
        shape: that came of it.
        dtype: that came of it.
        ratio: error in units of the stated bound.
        error: relative.
        bound: that was stated.
        method: that the engine took.
        note: why it is kept, if not as the worst of its engine.
    """

    engine: str
    criterion: str
    family: str
    seed: int
    smallest: int
    largest: int
    shape: tuple[int, int]
    dtype: str
    ratio: float
    error: float
    bound: float
    method: str
    note: str = ""

    def __str__(self) -> str:
        sides = "x".join(map(str, self.shape))
        return (
            f"{self.family} {sides} {self.dtype}, seed {self.seed}: error {self.error:.1e}, bound {self.bound:.1e} "
            f"({self.method}, {self.criterion})"
        )


def measure(family: str, seed: int, smallest: int, largest: int, tasks: list[tuple[str, str]]) -> list[Case]:
    """Draw one matrix, decompose it once, and hold every (engine, criterion) that serves it to the truth."""
    weight = families.draw(family, seed, smallest, largest)
    truth = bounds.Truth.of(weight)
    cases = []
    for engine, criterion in tasks:
        if bounds.serves(engine, weight):
            found = bounds.verdict(engine, criterion, weight, truth)
            ratio, error, bound = (float(number) for number in (found.ratio, found.error, found.bound))
            dtype = str(weight.dtype).removeprefix("torch.")
            recipe = (engine, criterion, family, seed, smallest, largest, truth.shape, dtype)
            cases.append(Case(*recipe, ratio, error, bound, found.method))
    return cases


@dataclass
class Tally:
    """What many cases came to, by engine and criterion."""

    ratios: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    unknown: dict[tuple[str, str], int] = field(default_factory=dict)
    worst: dict[tuple[str, str], Case] = field(default_factory=dict)
    of_families: dict[str, Case] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """Count one; where nothing was claimed, there is nothing to hold it to."""
        key = (case.engine, case.criterion)
        if math.isinf(case.bound):
            self.unknown[key] = self.unknown.get(key, 0) + 1
            return
        self.ratios.setdefault(key, []).append(case.ratio)
        if case.ratio > 0 and case.ratio >= getattr(self.worst.get(key), "ratio", 0.0):
            self.worst[key] = case
        if case.ratio >= getattr(self.of_families.get(case.family), "ratio", 0.0):
            self.of_families[case.family] = case

    def rows(self) -> list[dict[str, Any]]:
        """One row an engine and criterion: how many, median, 99th percentile and largest ratio, and whose that is."""
        rows = []
        for key, ratios in sorted(self.ratios.items(), key=lambda item: bounds.EVERY_ENGINE.index(item[0][0])):
            median, high = np.quantile(ratios, [0.5, 0.99])
            row = {
                "engine": key[0],
                "criterion": key[1],
                "cases": len(ratios),
                "nothing_claimed": self.unknown.get(key, 0),
            }
            row |= {"median_ratio": float(median), "p99_ratio": float(high), "largest_ratio": max(ratios)}
            rows.append({**row, "worst": asdict(self.worst[key]) if key in self.worst else None})
        return rows

    def families(self) -> dict[str, dict[str, Any]]:
        """Family -> where it came nearest to a bound."""
        return {family: asdict(case) for family, case in sorted(self.of_families.items())}

    def lines(self) -> list[str]:
        """The rows for people."""
        return [
            f"{row['engine']:<14} {row['criterion']:<9} {row['cases']:>6} cases, error / bound: median "
            f"{row['median_ratio']:.2g}, 99 % {row['p99_ratio']:.2g}, largest {row['largest_ratio']:.2g}: "
            f"{self.worst.get((row['engine'], row['criterion']), 'no error')}"
            for row in self.rows()
        ] + [
            f"{family:<16} {case.ratio:.2g} by {case.engine}: {case}"
            for family, case in sorted(self.of_families.items())
        ]


TALLY = Tally()
"""Of this run of the tests; printed at its end."""


def read_worst_cases() -> list[Case]:
    """The committed cases; a bound that was infinite is null in the file."""
    entries = json.loads(WORST_CASES.read_text(encoding="utf-8"))
    numbers = ("ratio", "error", "bound")
    infinite = [{key: math.inf for key in numbers if entry[key] is None} for entry in entries]
    return [Case(**{**e, **more, "shape": tuple(e["shape"])}) for e, more in zip(entries, infinite, strict=True)]
