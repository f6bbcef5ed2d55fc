"""Recordings of launches: when one is made, that it serves other matrices, and that memory is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spectrum_fast.measure.ops import device_graph
from spectrum_fast.measure.ops.band import reference
from spectrum_fast.measure.ops.band.panels import reduce_panels
from spectrum_fast.measure.ops.band.workspace import allocate
from spectrum_fast.measure.ops.device_graph import RECORDINGS, Recordings, use_graphs

from support.bands import eigenvalues
from support.interpreter import INTERPRETED

pytestmark = pytest.mark.skipif(INTERPRETED, reason="no kernel in here")
triton_band = pytest.importorskip("spectrum_fast.measure.ops.band.triton")


def reduce(matrix: Tensor, carried: Tensor | None) -> tuple[Tensor, ...]:
    bands = reduce_panels(allocate(matrix, 8, carried=carried), reference)
    return (bands,) if carried is None else (bands, carried)


def symmetric(count: int, n: int, seed: int) -> Tensor:
    matrix = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed))
    return (matrix + matrix.mT) / 2


@pytest.fixture
def recorded() -> list[int]:
    """Sizes of the results of what was recorded."""
    return []


@pytest.fixture
def recordings(recorded: list[int]) -> Recordings:
    """A replay runs the function again: what a graph must not depend on is the batch that it was recorded with."""

    def capture(function: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        results = function()
        recorded.append(len(results[0]))

        def replay() -> None:
            for kept, result in zip(results, function(), strict=True):
                kept.copy_(result)

        return replay, results

    return Recordings(capture)


def test_the_second_batch_of_a_shape_is_recorded_and_later_ones_are_replayed(
    recordings: Recordings, recorded: list[int]
) -> None:
    recordings.run("band", reduce, (symmetric(2, 40, 0), None))
    assert recorded == []
    for seed, scale in ((1, 1.0), (2, 1e6), (3, 1e-6)):
        batch = scale * symmetric(2, 40, seed)
        x = torch.randn(2, 8, 40, dtype=torch.float64)
        (bands,) = recordings.run("band", reduce, (batch.clone(), None))
        same, turned = recordings.run("with vectors", reduce, (batch.clone(), x.clone()))
        torch.testing.assert_close(turned.norm(dim=2), x.norm(dim=2), rtol=1e-12, atol=0)
        assert torch.equal(same, bands)
        for band, matrix in zip(bands, batch, strict=True):
            truth = torch.linalg.eigvalsh(matrix.double())
            limit = 1e-5 * float(matrix.norm())
            torch.testing.assert_close(eigenvalues(band.double()), truth, rtol=0, atol=limit)
    assert len(recorded) == 2
    recordings.run("band", reduce, (symmetric(1, 40, 0), None))  # another shape
    assert len(recorded) == 2


def test_memory_is_bounded(recordings: Recordings, recorded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """And no recording is given up for another in turns: the host would record all the time."""
    small, large = symmetric(1, 24, 0), symmetric(3, 24, 1)

    def run(*batches: Tensor) -> list[int]:
        recorded.clear()
        for batch in batches:
            recordings.run("band", reduce, (batch.clone(), None))
        return recorded

    monkeypatch.setattr(device_graph, "TOTAL_BYTES", large.nbytes)
    monkeypatch.setattr(device_graph, "LIMIT_BYTES", large.nbytes - 1)
    assert run(large, large, large) == []
    monkeypatch.setattr(device_graph, "LIMIT_BYTES", large.nbytes)
    assert run(small, small, large, small, large, small, large) == [1]
    assert run(large, large, small, large, small, large) == [3]
    recordings.forget()
    assert run(small) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_replay_gives_the_same_bits(dtype: torch.dtype) -> None:
    batches = [symmetric(2, 200, seed).to("cuda", dtype) for seed in range(4)]
    vectors = [torch.randn(2, 8, 200, dtype=torch.float64).cuda() for _ in batches]

    def run() -> list[tuple[Tensor, Tensor]]:
        found = []
        for batch, x in zip(batches, vectors, strict=True):
            turned = x.clone()
            found.append((triton_band.reduce_to_band(batch.clone(), 32, turned), turned))
        return found

    launched = run()
    with use_graphs(True):
        replayed = run()
    RECORDINGS.forget()
    for one, other in zip(launched, replayed, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
