"""The copy to a device, on the CPU: the same threads and the same order, with a transfer that takes its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import BackendUnavailableError, CheckpointError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream import StreamOptions, load_tensor, stream_weights
from spectrum_fast.read.stream.device import DEVICE_BATCHES, CudaTransfer

from support.streams import descriptors, plans_of, reading_threads, write_many


class SlowTransfer:
    """Copies when it is waited for, not when it is started, as a device does."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.alive = self.most_alive = self.adopted = 0
        self.threads: set[str] = set()
        self._seconds = seconds

    def start(self, source: Tensor) -> tuple[Tensor, Callable[[], None]]:
        copy = torch.full_like(source, 0xFF)
        self.threads.add(threading.current_thread().name)

        def wait() -> None:
            time.sleep(self._seconds)
            copy.copy_(source)

        return copy, wait

    def adopt(self, copy: Tensor) -> None:
        assert copy.dtype == torch.uint8
        self.adopted += 1
        self.threads.add(threading.current_thread().name)


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("buffer_bytes", [1 << 20, None])
def test_what_arrives_is_what_was_stored(tmp_path: Path, threads: int, buffer_bytes: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"w{i:02d}": torch.randn(100, 200, generator=generator) for i in range(30)}
    tensors |= {
        "x.tall": torch.randn(3000, 99, generator=generator),
        "y.wide": torch.randn(99, 3000, generator=generator),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    refs = open_checkpoint(tmp_path).tensors
    transfer = SlowTransfer(0.001)
    kept = []
    stream = stream_weights(
        plans_of(refs), StreamOptions(buffer_bytes=buffer_bytes, threads=threads, poison=True), transfer=transfer
    )
    for loaded in stream:
        expected = load_tensor(loaded.plan.main)
        if isinstance(loaded.main, BlockMatrix):
            found = torch.cat([block.clone() for block in loaded.main.blocks()], 0 if loaded.main.is_tall else 1)
            assert torch.equal(found, expected)
            continue
        assert torch.equal(loaded.main, expected)
        kept.append((loaded.main, expected))
    assert transfer.adopted == stream.statistics.batches
    assert transfer.threads == {"spectrum-fast-copy", "MainThread"}
    assert stream.statistics.peak_buffer_bytes <= stream.statistics.capacity_bytes
    assert reading_threads() == []
    assert descriptors() == set()


def test_device_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrum_fast.read.stream.weights.STRETCH_BYTES", 1)
    refs = write_many(tmp_path)
    started = []

    class Counting(SlowTransfer):
        def start(self, source: Tensor) -> tuple[Tensor, Callable[[], None]]:
            started.append(None)
            return super().start(source)

    with stream_weights(plans_of(refs), transfer=Counting()) as stream:
        for done in range(1, 5):
            next(stream)
            time.sleep(0.05)  # the copier would go as far as it may
            assert len(started) <= done - 1 + DEVICE_BATCHES
    assert len(started) < len(refs)


@pytest.mark.parametrize("at", [0, 2])
def test_a_copy_that_fails_reaches_the_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr("spectrum_fast.read.stream.weights.STRETCH_BYTES", 1)
    refs = write_many(tmp_path)
    count = iter(range(100))

    class Failing(SlowTransfer):
        def start(self, source: Tensor) -> tuple[Tensor, Callable[[], None]]:
            if next(count) == at:
                raise MemoryError("no device memory")
            return super().start(source)

    stream = stream_weights(plans_of(refs), transfer=Failing())
    for _ in range(at):
        next(stream)
    with pytest.raises(MemoryError, match="no device memory"):
        next(stream)
    assert reading_threads() == []


def test_errors_of_reading_come_through_the_copy(tmp_path: Path) -> None:
    refs = write_many(tmp_path)
    refs[0].file.unlink()
    with pytest.raises(CheckpointError, match=r"part0\.safetensors"):
        list(stream_weights(plans_of(refs), transfer=SlowTransfer()))
    assert reading_threads() == []


def test_closing_early_stops_the_copier(tmp_path: Path) -> None:
    refs = write_many(tmp_path)
    stream = stream_weights(plans_of(refs), transfer=SlowTransfer(0.05))
    next(stream)
    stream.close()
    assert reading_threads() == []
    assert descriptors() == set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refs = write_many(tmp_path)
    with pytest.raises(BackendUnavailableError, match="device 'cuda': expected cpu or one of 0 usable CUDA devices"):
        next(stream_weights(plans_of(refs), StreamOptions(device="cuda")))
    with pytest.raises(BackendUnavailableError, match="no such name"):
        CudaTransfer("a toaster")
    assert reading_threads() == []
