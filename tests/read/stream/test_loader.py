"""Reading weights: values, order, bounded memory, early stops, changing files."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.errors import CheckpointError, UnsupportedDtypeError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.scaled import read_scaled
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import StreamOptions, layout, load_tensor, stream_weights, weights

from support.streams import descriptors, plan_of, plans_of, reading_threads, write_many

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((), (1,), (7,), (3, 5), (2, 3, 4), (0,), (0, 4), (4, 0, 2))
OPTIONS = {
    "in the caller's thread": StreamOptions(threads=0),
    "default": StreamOptions(),
    "small buffer": StreamOptions(buffer_bytes=1 << 20, threads=3),
    "direct": StreamOptions(direct_io="auto"),
}
each_way = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture
def many(tmp_path: Path) -> tuple[TensorRef, ...]:
    return write_many(tmp_path)


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of one weight and a window of nothing: one weight in use, one ahead, whatever their size."""
    monkeypatch.setattr(weights, "STRETCH_BYTES", 1)
    monkeypatch.setattr("spectrum_fast.read.stream.options.AUTO_WINDOW_BYTES", 1)


@each_way
def test_every_dtype_and_shape(tmp_path, options):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{dtype}-{shape}": torch.randn(shape, generator=generator).to(dtype) for dtype in DTYPES for shape in SHAPES
    }
    save_file(tensors, tmp_path / "m.safetensors")
    refs = open_checkpoint(tmp_path).tensors
    seen = []
    for loaded in stream_weights(plans_of(refs), options):
        ref = loaded.plan.main
        seen.append(ref)
        expected = tensors[ref.name]
        assert loaded.main.dtype == expected.dtype
        assert loaded.main.shape == expected.shape
        assert torch.equal(loaded.main, expected)
        assert loaded.main.is_contiguous()
        assert loaded.read_seconds >= 0
        assert torch.equal(load_tensor(ref), expected)
    assert tuple(seen) == refs


@each_way
def test_any_order_and_repetitions(many, options):
    order = [many[i] for i in (9, 0, 0, 5, 1, 9)]
    with stream_weights(plans_of(order), options) as stream:
        assert [loaded.main[0, 0].item() for loaded in stream] == [float(ref.name[1:]) for ref in order]


@pytest.mark.parametrize("threads", [0, 3])
def test_short_reads_and_chunks_are_put_together(tmp_path, monkeypatch, threads):
    values = torch.arange(10_000, dtype=torch.float32).reshape(100, 100)
    save_file({"w": values}, tmp_path / "m.safetensors")
    monkeypatch.setattr(layout, "CHUNK_BYTES", 1000)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:333]], at))
    (ref,) = open_checkpoint(tmp_path).tensors
    assert torch.equal(load_tensor(ref), values)
    for loaded in stream_weights([plan_of(ref)], StreamOptions(threads=threads)):
        assert torch.equal(loaded.main, values)


@each_way
def test_unaligned_data(tmp_path, options):
    raw = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    for pad in range(4):  # the header may have any length in old files, and so may a tensor before
        path = tmp_path / f"m{pad}.safetensors"
        header = raw + b" " * pad
        path.write_bytes(
            len(header).to_bytes(8, "little") + header + b"x" + torch.tensor([1.5, -2.0]).numpy().tobytes()
        )
        (codes, ref) = open_checkpoint(path).tensors
        assert load_tensor(ref).tolist() == [1.5, -2.0]
        packed = WeightPlan("w", "w", ref, {"codes": codes}, read_scaled)
        for plan in (plan_of(ref), packed):
            (found,) = [(loaded.main.tolist(), len(loaded.companions)) for loaded in stream_weights([plan], options)]
            assert found == ([1.5, -2.0], len(plan.companions))


@pytest.mark.parametrize("threads", [0, None])
def test_an_undecoded_type_is_refused_in_its_turn(tmp_path, threads):
    tensors = {"a": torch.ones(2), "b": torch.ones(2, dtype=torch.int64), "c": torch.ones(2) * 3}
    save_file(tensors, tmp_path / "m.safetensors")
    refs = sorted(open_checkpoint(tmp_path).tensors, key=lambda ref: ref.name)
    stream = stream_weights(plans_of(refs), StreamOptions(threads=threads, poison=True))
    assert next(stream).plan.name == "a"
    with pytest.raises(UnsupportedDtypeError, match=r"'b'.*I64"):
        next(stream)
    assert stream.failed is not None
    assert stream.failed.main.name == "b"
    assert next(stream).main.tolist() == [3, 3]  # the others have nothing to do with it
    assert stream.failed is None
    assert list(stream) == []
    stream.close()
    assert descriptors() == set()
    assert next(stream, None) is None


@each_way
def test_nothing_is_left_open(many, options):
    stream = stream_weights(plans_of(many), options)
    assert [loaded.main[0, 0].item() for loaded in stream] == sorted(float(ref.name[1:]) for ref in many)
    assert descriptors() == set()
    assert reading_threads() == []
    load_tensor(many[0])
    assert descriptors() == set()


@each_way
def test_closing_early_stops_the_threads_and_closes_the_files(many, options):
    stream = stream_weights(plans_of(many), options)
    next(stream)
    assert descriptors()
    stream.close()
    assert descriptors() == set()
    assert reading_threads() == []
    assert next(stream, None) is None


def test_dropping_the_iterator_or_never_starting_it_leaks_nothing(many):
    stream_weights(plans_of(many))
    assert reading_threads() == []
    for _ in stream_weights(plans_of(many)):
        break
    gc.collect()
    assert descriptors() == set()
    assert reading_threads() == []
    kept = next(stream_weights(plans_of(many)))  # the weight does not keep the stream
    gc.collect()
    assert reading_threads() == []
    kept.release()


def test_an_exception_in_the_consumer_stops_the_threads(many):
    def consume():
        for loaded in stream_weights(plans_of(many)):
            raise KeyboardInterrupt(loaded.plan.name)

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert reading_threads() == []
    assert descriptors() == set()


def test_an_exception_of_the_list_stops_the_threads(many):
    def plans():
        yield plan_of(many[0])
        raise ValueError("no more work")

    with pytest.raises(ValueError, match="no more work"):
        list(stream_weights(plans()))
    assert reading_threads() == []
    assert descriptors() == set()


def test_few_tensors_are_in_memory_at_once(many, one_at_a_time):
    stream = stream_weights(plans_of(many))
    for _ in stream:
        time.sleep(0.005)  # the readers would run ahead as far as they may
    page = 4096
    assert many[0].nbytes <= stream.statistics.buffer_peak_bytes <= 2 * (many[0].nbytes + page)


def test_the_next_weight_is_read_while_the_consumer_works(many, monkeypatch, one_at_a_time):
    offsets = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: offsets.append(at) or real(fd, buffers, at))
    stream = stream_weights(plans_of(many))
    next(stream)
    deadline = time.monotonic() + 5
    while len(offsets) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert sorted(offsets) == [many[0].begin, many[1].begin]
    stream.close()


def test_the_list_is_only_advanced_as_far_as_the_window(many, one_at_a_time):
    asked = []

    def plans():
        for ref in many:
            asked.append(ref)
            yield plan_of(ref)

    stream = stream_weights(plans())
    next(stream)
    assert len(asked) <= 3  # in use, ahead, and the one that does not fit
    stream.close()


def test_many_small_tensors_are_a_few_long_reads(tmp_path, monkeypatch):
    save_file({f"experts.{i}.up": torch.full((8, 8), float(i)) for i in range(500)}, tmp_path / "m.safetensors")
    refs = open_checkpoint(tmp_path).tensors
    reads = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: reads.append(at) or real(fd, buffers, at))
    stream = stream_weights(plans_of(refs))
    for loaded in stream:
        assert loaded.main[0, 0] == float(loaded.plan.name.split(".")[1])
    assert len(reads) == 1
    assert stream.statistics.bytes_from_storage == 500 * 256


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
def test_a_file_that_changes_during_a_scan_is_an_error(many, change, started, one_at_a_time):
    last = [ref for ref in many if ref.file == many[0].file]
    stream = stream_weights(plans_of(last))
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

    monkeypatch.setattr(layout, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(os, "preadv", shrinking)
    with pytest.raises(CheckpointError, match="ends after 4096: truncated or replaced while being read"):
        load_tensor(ref)


def test_an_input_output_error_names_tensor_and_file(many, monkeypatch):
    def broken(fd, buffers, at):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(CheckpointError, match=r"'w00' in .*part0.safetensors: cannot be read.*Input/output error"):
        list(stream_weights(plans_of(many)))
    assert descriptors() == set()


def test_the_stop_takes_effect_inside_a_tensor(many, monkeypatch):
    real = os.preadv
    monkeypatch.setattr(layout, "CHUNK_BYTES", 16)
    chunks = []

    def slow(fd, buffers, at):
        chunks.append(at)
        time.sleep(0.01)
        return real(fd, buffers, at)

    stream = stream_weights(plans_of(many))
    next(stream)
    monkeypatch.setattr(os, "preadv", slow)  # 1024 chunks a tensor, all of them if the stop were not looked at
    time.sleep(0.05)
    stream.close()
    assert len(chunks) < 1024
    assert reading_threads() == []


@pytest.mark.parametrize("threads", [0, 2])
def test_the_tensors_before_a_bad_place_are_good(many, monkeypatch, threads):
    bad = many[3]
    real = os.preadv

    def broken(fd, buffers, at):
        if at <= bad.begin + 100 < at + len(buffers[0]):
            if at == bad.begin + 100:
                raise OSError(5, "Input/output error")
            return real(fd, [buffers[0][: bad.begin + 100 - at]], at)  # a disk gives what comes before
        return real(fd, buffers, at)

    monkeypatch.setattr(os, "preadv", broken)
    stream = stream_weights(plans_of(many), StreamOptions(threads=threads))
    for i in range(3):
        assert (next(stream).main == float(many[i].name[1:])).all()
    with pytest.raises(CheckpointError, match=rf"'{bad.name}' in .*at byte {bad.begin + 100}: Input/output error"):
        next(stream)
    assert descriptors() == set()
    assert reading_threads() == []


def test_an_unexpected_error_in_a_reading_thread_reaches_the_consumer(many, monkeypatch):
    def broken(fd, buffers, at):
        raise MemoryError("out of it")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(MemoryError, match="out of it"):
        list(stream_weights(plans_of(many)))
    assert reading_threads() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"buffer_bytes": 1000}, "1048576 bytes.* found 1000"),
        ({"direct_io": "maybe"}, "unknown direct_io 'maybe': expected one of off, auto, on"),
    ],
)
def test_options_out_of_range(arguments, words):
    with pytest.raises(UsageError, match=words):
        StreamOptions(**arguments)


def test_no_tensors():
    assert list(stream_weights([])) == []
