"""Finds of past campaigns stay found, and a few thousand fresh mutations are tried on every run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_past_finds(name: str) -> None:
    target = TARGETS[name]
    finds = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    for raw in (*target.seeds, *finds):
        target.run(raw)


@pytest.mark.parametrize("name", TARGETS)
def test_fresh_mutations(name: str) -> None:
    target = TARGETS[name]
    draw = random.Random(name)  # noqa: S311 - no secret is made of it
    for _ in range(MUTATIONS):
        target.run(mutate(draw.choice(target.seeds), target.words, draw))


def mutate(raw: bytes, words: tuple[bytes, ...], draw: random.Random) -> bytes:
    """One to four edits: a word or random bytes put in place of nothing or of a few bytes."""
    for _ in range(draw.randint(1, 4)):
        place, removed = draw.randint(0, len(raw)), draw.choice([0, 0, 1, 2, 8, 40])
        added = draw.choice([b"", draw.choice(words), draw.choice(words), draw.randbytes(draw.randint(1, 3))])
        raw = raw[:place] + added + raw[place + removed :]
    return raw
