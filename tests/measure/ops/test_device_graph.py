"""Recordings of a reduction: when one is made, that it serves other matrices, and that memory is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spectrum_fast.measure.ops.band import device_graph, reference
from spectrum_fast.measure.ops.band.device_graph import RECORDINGS, Recordings, use_graphs
from spectrum_fast.measure.ops.band.panels import reduce_panels
from spectrum_fast.measure.ops.band.workspace import Workspace

from support.bands import eigenvalues
from support.interpreter import INTERPRETED

pytestmark = pytest.mark.skipif(INTERPRETED, reason="no kernel in here")
triton_band = pytest.importorskip("spectrum_fast.measure.ops.band.triton")


def run(workspace: Workspace) -> torch.Tensor:
    return reduce_panels(workspace, reference)


def symmetric(count: int, n: int, seed: int) -> torch.Tensor:
    matrix = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed))
    return (matrix + matrix.mT) / 2


@pytest.fixture
def recorded() -> list[Workspace]:
    return []


@pytest.fixture
def recordings(recorded: list[Workspace]) -> Recordings:
    """A replay runs the steps again: what a graph must not depend on is the batch that it was recorded with."""

    def record(workspace: Workspace, steps: Callable[[Workspace], object]) -> Callable[[], None]:
        recorded.append(workspace)

        def replay() -> None:
            workspace.begin_again()
            steps(workspace)

        return replay

    return Recordings(record)


def test_the_second_batch_of_a_shape_is_recorded_and_later_ones_are_replayed(
    recordings: Recordings, recorded: list[Workspace]
) -> None:
    assert recordings.reduce(symmetric(2, 40, 0), 8, run) is None
    for seed, scale in ((1, 1.0), (2, 1e6), (3, 1e-6)):
        batch = scale * symmetric(2, 40, seed)
        kept = batch.clone()
        bands = recordings.reduce(batch, 8, run)
        assert bands is not None
        assert torch.equal(batch, kept)
        for band, matrix in zip(bands, batch, strict=True):
            truth = torch.linalg.eigvalsh(matrix.double())
            limit = 1e-5 * float(matrix.norm())
            torch.testing.assert_close(eigenvalues(band.double()), truth, rtol=0, atol=limit)
    assert len(recorded) == 1
    assert recordings.reduce(symmetric(1, 40, 0), 8, run) is None  # another shape


def test_memory_is_bounded(recordings: Recordings, recorded: list[Workspace], monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = symmetric(1, 24, 0), symmetric(3, 24, 1)
    monkeypatch.setattr(device_graph, "LIMIT_BYTES", large.nbytes - 1)
    for _ in range(3):
        assert recordings.reduce(large, 8, run) is None
    monkeypatch.setattr(device_graph, "LIMIT_BYTES", large.nbytes)
    for batch in (small, small, large, large, small, small):
        recordings.reduce(batch, 8, run)
    assert [len(workspace.matrix) for workspace in recorded] == [1, 3, 1]
    recordings.forget()
    assert recordings.reduce(small, 8, run) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_replay_gives_the_same_bits(dtype: torch.dtype) -> None:
    batches = [symmetric(2, 200, seed).to("cuda", dtype) for seed in range(4)]
    launched = [triton_band.reduce_to_band(batch.clone(), 32) for batch in batches]
    with use_graphs(True):
        replayed = [triton_band.reduce_to_band(batch.clone(), 32) for batch in batches]
    RECORDINGS.forget()
    for one, other in zip(launched, replayed, strict=True):
        assert torch.equal(one, other)
