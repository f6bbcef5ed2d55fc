"""The stream for a GPU: a page-locked ring, copies on a side stream, blocks on the device. The same bytes as ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.stream import StreamOptions, load_tensor, pipeline, stream_weights
from spectrum_fast.read.stream.device import SideStream, pin_memory
from spectrum_fast.read.stream.ring import Ring

from support.streams import plans_of, reading_threads, write_many

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("direct_io", ["off", "auto"])
@pytest.mark.parametrize("buffer_bytes", [8 << 20, None])
def test_what_arrives_is_what_was_stored(tmp_path: Path, buffer_bytes: int | None, direct_io: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"w{i:02d}": torch.randn(700, 900, generator=generator).bfloat16() for i in range(24)}
    tensors |= {
        "x.tall": torch.randn(9000, 700, generator=generator),
        "y.wide": torch.randn(700, 9000, generator=generator),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    refs = open_checkpoint(tmp_path).tensors
    options = StreamOptions(buffer_bytes=buffer_bytes, device="cuda", direct_io=direct_io, poison=True)
    side, sums = SideStream("cuda"), []
    with stream_weights(plans_of(refs), options) as stream:
        for loaded in stream:
            expected = load_tensor(loaded.plan.main)
            if isinstance(loaded.main, BlockMatrix):
                blocks = list(map(torch.clone, loaded.main.blocks()))
                assert {block.device.type for block in blocks} == {"cuda"}
                assert torch.equal(torch.cat(blocks, 0 if loaded.main.is_tall else 1).cpu(), expected)
                continue
            assert loaded.main.is_pinned()
            assert torch.equal(loaded.on("cuda").main.cpu(), expected)  # type: ignore[union-attr]
            with side.done():
                copy = torch.empty(loaded.main.shape, dtype=loaded.main.dtype, device="cuda")
                copy.copy_(loaded.main, non_blocking=True)
            side.hand_over((copy,))
            # Work that is still in flight when the next weight is asked for: it must see this one.
            square = copy.float() @ copy.float().T
            sums.append((square.diagonal().sum(), expected.double().square().sum()))
    for found, truth in sums:
        assert float(found) == pytest.approx(float(truth), rel=1e-3)
    assert stream.statistics.buffer_peak_bytes <= stream.statistics.buffer_bytes
    assert reading_threads() == []


@pytest.mark.gpu
@needs_gpu
def test_a_side_stream_waits_for_what_the_device_has_begun() -> None:
    with SideStream("cuda").done(source := torch.ones(3, device="cuda") * 2):
        copy = source.clone()
    assert copy.tolist() == [2, 2, 2]


@pytest.mark.gpu
@needs_gpu
def test_the_ring_is_page_locked() -> None:
    ring = Ring(1 << 20, pin=partial(pin_memory, device="cuda"))
    assert ring.bytes.is_pinned()
    ring.close()
    assert not ring.bytes.is_pinned()


@pytest.mark.gpu
@needs_gpu
def test_it_is_page_locked_under_the_device_of_the_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the current one the call would make a context there, whose memory belongs to somebody else."""
    current, locked_under = [0], []
    runtime, enter = torch.cuda.cudart(), torch.cuda.device

    @contextmanager
    def device(wanted: object) -> Iterator[None]:
        before, current[0] = current[0], torch.device(wanted).index or 0  # type: ignore[arg-type]
        yield
        current[0] = before

    def lock(address: int, nbytes: int, flags: int) -> int:
        locked_under.append(current[0])
        return int(runtime.cudaHostRegister(address, nbytes, flags))

    stand_in = SimpleNamespace(cudaHostRegister=lock, cudaHostUnregister=runtime.cudaHostUnregister)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: stand_in)
    monkeypatch.setattr(torch.cuda, "device", device)
    Ring(1 << 20, pin=partial(pin_memory, device="cuda:1")).close()
    assert locked_under == [1]
    monkeypatch.setattr(torch.cuda, "device", enter)
    save_file({"w": torch.ones(200, 300)}, tmp_path / "m.safetensors")
    told = []
    monkeypatch.setattr(pipeline, "pin_memory", lambda *place, device: told.append(device) or pin_memory(*place))
    with stream_weights(plans_of(open_checkpoint(tmp_path).tensors), StreamOptions(device="cuda:0")) as stream:
        assert len(list(stream)) == 1
    assert told == ["cuda:0"]


@pytest.mark.gpu
@needs_gpu
def test_a_device_number_that_is_not_there() -> None:
    with pytest.raises(BackendUnavailableError, match="usable CUDA devices"):
        next(stream_weights([], StreamOptions(device="cuda:99")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refs = write_many(tmp_path)
    with pytest.raises(BackendUnavailableError, match="device 'cuda': expected cpu or one of 0 usable CUDA devices"):
        next(stream_weights(plans_of(refs), StreamOptions(device="cuda")))
    with pytest.raises(BackendUnavailableError, match="no such name"):
        next(stream_weights(plans_of(refs), StreamOptions(device="a toaster")))
    assert reading_threads() == []


def test_a_device_is_read_for_by_as_many_threads_as_there_are_cores_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(10)), raising=False)
    assert StreamOptions(device="cuda").thread_count == 10


def test_a_device_is_given_its_bytes_far_ahead() -> None:
    on_host, for_device = StreamOptions(), StreamOptions(device="cuda")
    assert for_device.window_bytes(remote=False) == for_device.capacity_bytes >= on_host.capacity_bytes
    assert on_host.capacity_bytes > on_host.window_bytes(remote=True) > on_host.window_bytes(remote=False)
    assert 8 <= for_device.thread_count <= 12
    assert on_host.thread_count == 4
