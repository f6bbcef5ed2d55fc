"""Look for a matrix that breaks its stated bound, by evolution instead of drawing.

Run it with ``python tests/measure/spectra/search.py --minutes 60 --out FILE``; the same command goes on where it was.

A recipe is a family, a seed, two sides, a dtype and up to five changes (rows that become near-copies, entries that lose
their magnitude or their last bits, scaled rows, sums with another family). The recipes whose error came nearest to the
stated bound are changed a little and kept if that brought them nearer. The record of each engine is printed, and
kept beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from spectrum_fast.files import write_text_atomic  # noqa: E402
from spectrum_fast.measure.ops.dispatch import set_threads  # noqa: E402

from support import bounds, families  # noqa: E402

ENGINES = ("auto", "band-float32", "band-float64", "svd-float32")
CHANGES = ("copy_rows", "one_magnitude", "fewer_bits", "scale_rows", "flip_entries", "add_family", "repeat_columns")
DTYPES = ("float32", "bfloat16", "float64", "float16")
SMALLEST, LARGEST = 193, 420
POPULATION = 12
RECORDS = Path(__file__).parent / "search_records.json"
"""The nearest that each engine came, which ``make test`` holds to its bound from then on."""


@dataclass(frozen=True)
class Recipe:
    """One matrix; the same recipe gives the same matrix."""

    engine: str
    criterion: str
    family: str
    seed: int
    rows: int
    columns: int
    dtype: str
    changes: tuple[tuple[str, int], ...]

    def matrix(self) -> Tensor:
        """Built anew."""
        rng = np.random.default_rng([self.seed, *self.family.encode()])
        matrix = families.FAMILIES[self.family](rng, self.rows, self.columns).astype(np.float64)
        for name, seed in self.changes:
            matrix = _change(matrix / max(float(np.abs(matrix).max()), 1e-300), name, np.random.default_rng(seed))
        peak = max(float(np.abs(matrix).max()), 1e-300)
        scale = 10.0 ** np.random.default_rng(self.seed).uniform(-3, 1) / peak
        return torch.from_numpy(np.ascontiguousarray(matrix * scale)).to(getattr(torch, self.dtype))


def _change(matrix: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    rows, columns = matrix.shape
    if name == "copy_rows":
        count = max(1, int(rows * rng.uniform(0.02, 0.4)))
        sources, targets = rng.integers(0, rows, count), rng.permutation(rows)[:count]
        matrix = matrix.copy()
        matrix[targets] = matrix[sources]
        flips = rng.integers(0, columns, (count, int(rng.integers(0, 9))))
        matrix[targets[:, None], flips] *= -1
        return matrix
    if name == "one_magnitude":
        return np.where(np.abs(matrix) > np.quantile(np.abs(matrix), rng.uniform(0, 0.6)), np.sign(matrix), 0.0)
    if name == "fewer_bits":
        step = 2.0 ** -int(rng.integers(1, 12))
        return np.round(matrix / step) * step
    if name == "scale_rows":
        return matrix * 2.0 ** np.round(rng.uniform(0, 6) * rng.standard_normal((rows, 1)))
    if name == "flip_entries":
        matrix = matrix.copy()
        matrix[rng.integers(0, rows, 40), rng.integers(0, columns, 40)] *= -1
        return matrix
    if name == "add_family":
        family = list(families.FAMILIES.values())[int(rng.integers(len(families.FAMILIES)))]
        other = np.resize(family(rng, rows, columns), matrix.shape)  # one family rounds its sides down
        return matrix + 10.0 ** rng.uniform(-6, 0) * other / max(float(np.abs(other).max()), 1e-300)
    width = int(rng.integers(1, columns + 1))
    return np.tile(matrix[:, :width], (1, -(-columns // width)))[:, :columns]


def draw(rng: np.random.Generator, engine: str) -> Recipe:
    """A first recipe."""
    rows, columns = (int(side) for side in families.draw_sides(rng, SMALLEST, LARGEST)[:, 0])
    changes = tuple((str(rng.choice(CHANGES)), int(rng.integers(2**31))) for _ in range(int(rng.integers(0, 3))))
    family, dtype = str(rng.choice(list(families.FAMILIES))), str(rng.choice(DTYPES))
    criterion = str(rng.choice(bounds.CRITERIA))
    return Recipe(engine, criterion, family, int(rng.integers(2**31)), rows, columns, dtype, changes)


def mutate(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    """One thing of a recipe, drawn again."""
    other, choice = draw(rng, recipe.engine), int(rng.integers(6))
    if choice == 0 and len(recipe.changes) < 5:
        new = (str(rng.choice(CHANGES)), int(rng.integers(2**31)))
        return replace(recipe, changes=(*recipe.changes, new))
    if choice == 1 and recipe.changes:
        place = int(rng.integers(len(recipe.changes)))
        return replace(recipe, changes=recipe.changes[:place] + recipe.changes[place + 1 :])
    if choice == 2:
        return replace(recipe, seed=other.seed)
    if choice == 3:
        return replace(recipe, rows=other.rows, columns=other.columns)
    if choice == 4:
        return replace(recipe, dtype=other.dtype, criterion=other.criterion)
    if recipe.changes:
        place = int(rng.integers(len(recipe.changes)))
        again = (recipe.changes[place][0], int(rng.integers(2**31)))
        return replace(recipe, changes=(*recipe.changes[:place], again, *recipe.changes[place + 1 :]))
    return replace(recipe, family=other.family)


def recipe_of(entry: dict[str, Any]) -> Recipe:
    """As it was written."""
    return Recipe(**{**entry, "changes": tuple(map(tuple, entry["changes"]))})


def read_records() -> list[dict[str, Any]]:
    """The record of each engine that is committed: a recipe and its ratio."""
    return json.loads(RECORDS.read_text())["records"]


def ratio(recipe: Recipe) -> float:
    """Error in units of the stated bound."""
    weight = recipe.matrix()
    if not bool(torch.isfinite(weight).all()):
        return 0.0
    return bounds.verdict(recipe.engine, recipe.criterion, weight, bounds.Truth.of(weight)).ratio


def search(state: dict[str, list], minutes: float, out: Path) -> int:
    """Evolve the recipes of each engine in turn; how many broke their bound."""
    began, tried = time.monotonic(), int(state.get("tried", [0])[0])
    rng = np.random.default_rng([tried, 20406])
    best = {engine: [(r, recipe_of(d)) for r, d in state.get(engine, [])] for engine in ENGINES}
    while time.monotonic() - began < 60 * minutes:
        for engine in ENGINES:
            found = best[engine]
            fresh = len(found) < POPULATION or rng.uniform() < 0.2
            recipe = draw(rng, engine) if fresh else mutate(found[int(rng.integers(len(found)))][1], rng)
            reached = ratio(recipe)
            tried += 1
            if reached > 1:
                print(f"does not hold: {reached:.3g} {json.dumps(asdict(recipe))}", flush=True)
            found.append((reached, recipe))
            found.sort(key=lambda pair: -pair[0])
            del found[POPULATION:]
        kept = {engine: [(r if math.isfinite(r) else 1e9, asdict(d)) for r, d in best[engine]] for engine in ENGINES}
        write_text_atomic(out, json.dumps({"tried": [tried], **kept}, indent=1))
    records = [{"ratio": float(f"{best[engine][0][0]:.3g}"), **asdict(best[engine][0][1])} for engine in ENGINES]
    lines = ",\n ".join(map(json.dumps, records))
    write_text_atomic(RECORDS, f'{{"tried": {tried}, "records": [\n {lines}\n]}}\n')
    for engine in ENGINES:
        reached, recipe = best[engine][0]
        print(f"{engine:<13} record {reached:.3g} of the bound: {json.dumps(asdict(recipe))}")
    print(f"{tried} matrices tried")
    return sum(best[engine][0][0] > 1 for engine in ENGINES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, required=True, help="what the search goes on from, and its records")
    options = parser.parse_args()
    set_threads(1)
    state = json.loads(options.out.read_text()) if options.out.exists() else {}
    return 1 if search(state, options.minutes, options.out) else 0


if __name__ == "__main__":
    raise SystemExit(main())
