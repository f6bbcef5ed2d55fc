"""Reading tensors: values, order, bounded memory, early stops, changing files."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.checkpoint import open_checkpoint
from spectrum_fast.checkpoint.tensor_ref import TensorRef
from spectrum_fast.errors import CheckpointError, UnsupportedDtypeError, UsageError
from spectrum_fast.stream import load_tensor, loader, stream_tensors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((), (1,), (7,), (3, 5), (2, 3, 4), (0,), (0, 4), (4, 0, 2))


def descriptors() -> set[str]:
    held = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            held.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return {path for path in held if path.endswith(".safetensors")}


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("spectrum-fast-read")]


@pytest.fixture
def many(tmp_path: Path) -> tuple[TensorRef, ...]:
    """Ten tensors in two files, their values their numbers."""
    for part in range(2):
        tensors = {f"w{part}{i}": torch.full((64, 64), float(10 * part + i)) for i in range(5)}
        save_file(tensors, tmp_path / f"part{part}.safetensors")
    return open_checkpoint(tmp_path).tensors


@pytest.mark.parametrize("read_ahead", [0, 1, 3])
def test_every_dtype_and_shape(tmp_path, read_ahead):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{dtype}-{shape}": torch.randn(shape, generator=generator).to(dtype) for dtype in DTYPES for shape in SHAPES
    }
    save_file(tensors, tmp_path / "m.safetensors")
    refs = open_checkpoint(tmp_path).tensors
    seen = []
    for loaded in stream_tensors(refs, read_ahead=read_ahead):
        seen.append(loaded.ref)
        expected = tensors[loaded.ref.name]
        assert loaded.tensor.dtype == expected.dtype
        assert loaded.tensor.shape == expected.shape
        assert torch.equal(loaded.tensor, expected)
        assert loaded.tensor.is_contiguous()
        assert loaded.read_seconds >= 0
        assert torch.equal(load_tensor(loaded.ref), expected)
    assert tuple(seen) == refs


def test_short_reads_and_chunks_are_put_together(tmp_path, monkeypatch):
    values = torch.arange(10_000, dtype=torch.float32).reshape(100, 100)
    save_file({"w": values}, tmp_path / "m.safetensors")
    monkeypatch.setattr(loader, "CHUNK_BYTES", 1000)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:333]], at))
    (ref,) = open_checkpoint(tmp_path).tensors
    assert torch.equal(load_tensor(ref), values)


def test_unaligned_data(write_unaligned):
    (_, ref) = write_unaligned
    assert load_tensor(ref).tolist() == [1.5, -2.0]


@pytest.fixture
def write_unaligned(tmp_path: Path) -> tuple[TensorRef, ...]:
    raw = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"x" + torch.tensor([1.5, -2.0]).numpy().tobytes())
    return open_checkpoint(path).tensors


@pytest.mark.parametrize("read_ahead", [0, 1])
def test_an_undecoded_type_is_refused_in_its_turn(tmp_path, read_ahead):
    save_file({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.int64)}, tmp_path / "m.safetensors")
    refs = sorted(open_checkpoint(tmp_path).tensors, key=lambda ref: ref.name)
    stream = stream_tensors(refs, read_ahead=read_ahead)
    assert next(stream).ref.name == "a"
    with pytest.raises(UnsupportedDtypeError, match=r"'b'.*I64"):
        next(stream)
    assert descriptors() == set()


def test_nothing_is_left_open(many):
    assert [loaded.tensor[0, 0].item() for loaded in stream_tensors(many)] == sorted(
        float(ref.name[1:]) for ref in many
    )
    assert descriptors() == set()
    assert reading_threads() == []
    load_tensor(many[0])
    assert descriptors() == set()


@pytest.mark.parametrize("read_ahead", [0, 1, 4])
def test_closing_early_stops_the_thread_and_closes_the_file(many, read_ahead):
    stream = stream_tensors(many, read_ahead=read_ahead)
    next(stream)
    assert len(descriptors()) == 1
    stream.close()
    assert descriptors() == set()
    assert reading_threads() == []


def test_dropping_the_iterator_or_never_starting_it_leaks_nothing(many):
    stream_tensors(many)
    assert reading_threads() == []
    for _ in stream_tensors(many):
        break
    gc.collect()
    assert descriptors() == set()
    assert reading_threads() == []


def test_an_exception_in_the_consumer_stops_the_thread(many):
    def consume():
        for loaded in stream_tensors(many):
            raise KeyboardInterrupt(loaded.ref.name)

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert reading_threads() == []
    assert descriptors() == set()


@pytest.mark.parametrize("read_ahead", [0, 1, 2])
def test_few_tensors_are_alive_at_once(many, read_ahead, monkeypatch):
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0
    real = torch.empty

    def counting(*args, **kwargs):
        nonlocal most
        tensor = real(*args, **kwargs)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(torch, "empty", counting)
    for loaded in stream_tensors(many, read_ahead=read_ahead):
        time.sleep(0.01)  # the reader would run ahead as far as it may
        del loaded
    assert 1 <= most <= read_ahead + 2


def test_the_next_tensor_is_read_while_the_consumer_works(many, monkeypatch):
    read_names = []
    real = loader.TensorReader.read

    def recording(self, ref):
        loaded = real(self, ref)
        read_names.append(ref.name)
        return loaded

    monkeypatch.setattr(loader.TensorReader, "read", recording)
    stream = stream_tensors(many)
    next(stream)
    deadline = time.monotonic() + 5
    while len(read_names) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert read_names == [many[0].name, many[1].name]
    stream.close()


def test_the_list_is_only_advanced_as_needed(many):
    asked = []

    def refs():
        for ref in many:
            asked.append(ref)
            yield ref

    stream = stream_tensors(refs())
    next(stream)
    assert len(asked) == 2
    stream.close()


def rewrite(path: Path, data: bytes) -> None:
    """Replace by renaming, as a download does."""
    other = path.with_suffix(".new")
    other.write_bytes(data)
    other.rename(path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


CHANGES = {
    "truncated": truncate,
    "replaced": lambda path: rewrite(path, path.read_bytes()),
    "deleted": Path.unlink,
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "rewritten in place": lambda path: (path.write_bytes(bytes(path.stat().st_size)), os.utime(path, ns=(1, 1))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("started", [False, True])
def test_a_file_that_changes_during_a_scan_is_an_error(many, change, started):
    last = [ref for ref in many if ref.file == many[0].file]
    stream = stream_tensors(last)
    if started:
        next(stream)
    CHANGES[change](many[0].file)
    with pytest.raises(CheckpointError, match=r"part0\.safetensors") as caught:
        for _ in stream:
            pass
    assert "'w0" in str(caught.value) or "cannot be opened" in str(caught.value)
    assert descriptors() == set()


def test_a_file_that_shrinks_inside_a_read(many, monkeypatch):
    ref = many[4]
    real = os.preadv
    calls = []

    def shrinking(fd, buffers, at):
        calls.append(at)
        if len(calls) == 2:
            os.truncate(ref.file, at)
        return real(fd, buffers, at)

    monkeypatch.setattr(loader, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(os, "preadv", shrinking)
    with pytest.raises(CheckpointError, match="ends after 4096: truncated or replaced while being read"):
        load_tensor(ref)


def test_an_input_output_error_names_tensor_and_file(many, monkeypatch):
    def broken(fd, buffers, at):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(CheckpointError, match=r"'w00' in .*part0.safetensors: cannot be read.*Input/output error"):
        list(stream_tensors(many))
    assert descriptors() == set()


def test_the_stop_takes_effect_inside_a_tensor(many, monkeypatch):
    real = os.preadv
    monkeypatch.setattr(loader, "CHUNK_BYTES", 16)

    def slow(fd, buffers, at):
        time.sleep(0.01)
        return real(fd, buffers, at)

    stream = stream_tensors(many)
    next(stream)
    monkeypatch.setattr(os, "preadv", slow)  # 1024 chunks: ten seconds a tensor if the stop were not looked at
    time.sleep(0.05)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 2
    assert reading_threads() == []


def test_negative_read_ahead():
    with pytest.raises(UsageError, match="-1"):
        stream_tensors([], read_ahead=-1)


def test_no_tensors():
    assert list(stream_tensors([])) == []
