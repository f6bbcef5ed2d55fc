"""Work cut for many processes: nothing twice, nothing left out, neighbours together, the largest first."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.read.checkpoint import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning.chunks import cut_chunks, indices_of, spans_of, work_of


def weight(index: int, rows: int, columns: int) -> WeightPlan:
    ref = TensorRef(f"w{index}", Path("m.safetensors"), "BF16", (rows, columns), 0, 2 * rows * columns)
    return WeightPlan(name=ref.name, parameter=ref.name, main=ref)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=120),
    st.integers(1, 64),
    st.integers(1, 10**8),
    st.randoms(use_true_random=False),
)
def test_every_wanted_weight_is_in_one_chunk(shapes, processes: int, chunk_bytes: int, random) -> None:
    weights = [weight(index, *shape) for index, shape in enumerate(shapes)]
    wanted = sorted(random.sample(range(len(weights)), random.randint(0, len(weights))))
    chunks = [indices_of(spans) for spans in cut_chunks(weights, wanted, processes, chunk_bytes=chunk_bytes)]
    assert sorted(index for chunk in chunks for index in chunk) == wanted
    share = sum(work_of(weights[index]) for index in wanted) / processes
    places = {index: place for place, index in enumerate(wanted)}
    for chunk in chunks:
        assert [places[index] for index in chunk] == list(range(places[chunk[0]], places[chunk[0]] + len(chunk)))
        if len(chunk) > 1:
            assert sum(weights[index].nbytes for index in chunk) <= chunk_bytes
            assert sum(work_of(weights[index]) for index in chunk) <= share / 32 * (1 + 1e-9)
    work = [sum(work_of(weights[index]) for index in chunk) for chunk in chunks]
    assert all(later < 2 * earlier for earlier, later in itertools.pairwise(work))


def test_a_model_is_cut_finely_and_its_largest_matrices_come_first() -> None:
    layer = [(4096, 4096)] * 2 + [(1024, 4096)] * 2 + [(14336, 4096)] * 3
    weights = [weight(index, *shape) for index, shape in enumerate([(128256, 4096), *layer * 32])]
    chunks = [indices_of(spans) for spans in cut_chunks(weights, range(len(weights)), 8)]
    assert chunks[0] == [0]
    assert len(chunks) > 8 * 16
    # The greedy order of the queue: the last process ends no more than a few per cent after the mean.
    finish = [0.0] * 8
    for chunk in chunks:
        finish[finish.index(min(finish))] += sum(work_of(weights[index]) for index in chunk)
    assert max(finish) < 1.05 * sum(finish) / 8


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 4)])
def test_any_stored_shape_has_work(shape: tuple[int, ...]) -> None:
    ref = TensorRef("w", Path("m"), "F32", shape, 0, 100)
    assert work_of(WeightPlan(name="w", parameter="w", main=ref)) > 64 * 100


@given(st.sets(st.integers(0, 60)))
def test_spans_are_the_indices(indices: set[int]) -> None:
    ascending = sorted(indices)
    spans = spans_of(ascending)
    assert indices_of(spans) == ascending
    assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))
