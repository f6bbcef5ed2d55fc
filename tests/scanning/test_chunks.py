"""Work cut for many processes: nothing twice, nothing left out, neighbours together, the largest first, parts even."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.read.checkpoint import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning.chunks import cut_chunks, work_of
from spectrum_fast.scanning.parts import Part, share_of
from spectrum_fast.scanning.plan import ScanPlan


def weight(index: int, rows: int, columns: int) -> WeightPlan:
    ref = TensorRef(f"w{index}", Path("m.safetensors"), "BF16", (rows, columns), 0, 2 * rows * columns)
    return WeightPlan(name=ref.name, parameter=ref.name, main=ref)


def plan_of(weights: tuple[WeightPlan, ...]) -> ScanPlan:
    return ScanPlan(weights=weights, refused=(), skipped=(), ties={}, copies=())


def work(chunk: Sequence[WeightPlan]) -> float:
    return sum(map(work_of, chunk))


shapes = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=120)


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(1, 64), st.integers(1, 10**8))
def test_every_weight_is_in_one_chunk(shapes, processes: int, chunk_bytes: int) -> None:
    weights = [weight(index, *shape) for index, shape in enumerate(shapes)]
    chunks = cut_chunks(weights, processes, chunk_bytes=chunk_bytes)
    assert sorted((w for chunk in chunks for w in chunk), key=lambda w: int(w.name[1:])) == weights
    for chunk in chunks:
        first = weights.index(chunk[0])
        assert list(chunk) == weights[first : first + len(chunk)]
        if len(chunk) > 1:
            assert sum(w.nbytes for w in chunk) <= chunk_bytes
            assert work(chunk) <= work(weights) / processes / 32 * (1 + 1e-9)
    assert all(work(later) < 2 * work(earlier) for earlier, later in itertools.pairwise(chunks))


@settings(max_examples=100, deadline=None)
@given(shapes, st.integers(1, 64))
def test_every_weight_is_in_one_part_and_parts_are_even(shapes, count: int) -> None:
    weights = tuple(weight(index, *shape) for index, shape in enumerate(shapes))
    plan = plan_of(weights)
    parts = [share_of(plan, Part(number, count)) for number in range(count)]
    assert sorted(w.name for part in parts for w in part.weights) == sorted(w.name for w in weights)
    assert sum(part.total_bytes for part in parts) == plan.total_bytes
    # Longest first to whoever has least is at most one chunk above the mean.
    largest = max(map(work, cut_chunks(weights, count)))
    assert max(work(part.weights) for part in parts) <= work(weights) / count + largest * (1 + 1e-9)


LAYER = [(4096, 4096)] * 2 + [(1024, 4096)] * 2 + [(14336, 4096)] * 3


def test_parts_of_a_model_differ_by_a_few_per_cent() -> None:
    weights = tuple(weight(index, *shape) for index, shape in enumerate([(128256, 4096), *LAYER * 32]))
    plan = plan_of(weights)
    loads = [work(share_of(plan, Part(number, 8)).weights) for number in range(8)]
    assert max(loads) < 1.05 * sum(loads) / 8
    assert cut_chunks(weights, 8)[0] == weights[:1], "the largest first"


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 4)])
def test_any_stored_shape_has_work(shape: tuple[int, ...]) -> None:
    ref = TensorRef("w", Path("m"), "F32", shape, 0, 100)
    assert work_of(WeightPlan(name="w", parameter="w", main=ref)) > 64 * 100
