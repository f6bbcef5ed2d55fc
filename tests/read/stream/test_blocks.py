"""Matrices larger than their share of the buffer: cut along the long side, read as often as asked for."""

from __future__ import annotations

import gc
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import CheckpointError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.stream import StreamOptions, load_tensor, stream_weights
from spectrum_fast.read.stream.blocks import lay_out_blocks

from support.streams import descriptors, plan_of, plans_of, reading_threads

BUFFER = 1 << 20
SHAPES = {"tall": (3001, 257), "wide": (257, 3001), "square": (900, 900), "a row": (1, 400_001)}
SHAPES |= {"a column": (500_003, 1)}
OPTIONS = {
    "threads": StreamOptions(buffer_bytes=BUFFER),
    "caller": StreamOptions(buffer_bytes=BUFFER, threads=0),
    "direct": StreamOptions(buffer_bytes=BUFFER, direct_io="auto"),
}


@pytest.fixture
def large(tmp_path: Path) -> tuple[TensorRef, ...]:
    """One matrix of each shape and type, with a small one before and after."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"0.small": torch.ones(3, 3), "9.small": torch.full((3, 3), 2.0)}
    for name, shape in SHAPES.items():
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            tensors[f"5.{name} {dtype}"] = torch.randn(shape, generator=generator).to(dtype)
    save_file(tensors, tmp_path / "m.safetensors")
    return tuple(sorted(open_checkpoint(tmp_path).tensors, key=lambda ref: ref.name))


def joined(matrix: BlockMatrix) -> torch.Tensor:
    blocks = [block.clone() for block in matrix.blocks()]
    assert len(blocks) > 1
    return torch.cat(blocks, 0 if matrix.is_tall else 1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_blocks_are_the_matrix_pass_after_pass(large, options):
    stream = stream_weights(plans_of(large), options)
    in_blocks = 0
    for loaded in stream:
        expected = load_tensor(loaded.plan.main)
        if isinstance(loaded.main, torch.Tensor):
            assert torch.equal(loaded.main, expected)
            assert expected.nbytes <= BUFFER // 2
            continue
        in_blocks += 1
        assert loaded.main.shape == tuple(expected.shape)
        assert loaded.main.numel() == expected.numel()
        for _ in range(2):
            assert torch.equal(joined(loaded.main), expected)
        assert loaded.main.count.passes == 2
    assert in_blocks == sum(ref.nbytes > BUFFER // 2 for ref in large) == stream.statistics.weights_in_blocks
    assert stream.statistics.buffer_peak_bytes <= BUFFER
    assert descriptors() == set()
    assert reading_threads() == []


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_every_byte_is_read_once_a_pass(large, name):
    (ref,) = [ref for ref in large if ref.name == f"5.{name} torch.float64"]
    stream = stream_weights([plan_of(ref)], OPTIONS["threads"])
    loaded = next(stream)
    for passes in (1, 2):
        for _ in loaded.main.blocks():
            pass
        assert stream.statistics.bytes_from_storage == passes * ref.nbytes
    stream.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("block_bytes", [1, 5000, 100_000, 10**9])
def test_the_cut_covers_every_entry_once(shape, block_bytes):
    item = 2
    ref = TensorRef("w", Path("m.safetensors"), "BF16", shape, 1000, shape[0] * shape[1] * item)
    ranges = []
    for block in lay_out_blocks([ref], block_bytes):
        pieces = [piece for task in block.tasks for piece in task]
        ranges += [(piece.offset, piece.offset + piece.nbytes) for piece in pieces]
        assert sum(piece.nbytes for piece in pieces) == block.refs[0].nbytes
        longest = max(shape[1] if shape[0] >= shape[1] else shape[0], 1) * item
        assert block.refs[0].nbytes <= max(block_bytes, longest)
        if block_bytes == 1 and len(ranges) > 2000:
            return
    ranges.sort()
    assert ranges[0][0] == ref.begin
    assert ranges[-1][1] == ref.begin + ref.nbytes
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


def test_nothing_of_a_pass_that_was_given_up_is_kept(large):
    (ref,) = [ref for ref in large if ref.name == "5.tall torch.float32"]
    stream = stream_weights([plan_of(ref), plan_of(large[0])], OPTIONS["threads"])
    loaded = next(stream)
    held = iter(loaded.main.blocks())
    next(held)
    assert next(stream).plan.name == "0.small"  # the memory came back, although the pass is still held
    with pytest.raises(StopIteration):
        next(held)
    with pytest.raises(UsageError, match="read after it was released"):
        next(iter(loaded.main.blocks()))
    stream.close()
    assert stream.statistics.buffer_peak_bytes <= BUFFER


def test_a_pass_in_work_does_not_outlive_its_stream(large):
    (ref,) = [ref for ref in large if ref.name == "5.tall torch.float32"]
    stream = stream_weights([plan_of(ref)], OPTIONS["threads"])
    passing = iter(next(stream).main.blocks())
    next(passing)
    stream.close()
    assert reading_threads() == []
    assert descriptors() == set()
    del passing
    gc.collect()


@pytest.mark.parametrize("change", ["truncated", "replaced"])
def test_a_file_that_changes_between_two_passes(large, change):
    (ref,) = [ref for ref in large if ref.name == "5.wide torch.float32"]
    stream = stream_weights([plan_of(ref)], OPTIONS["threads"])
    loaded = next(stream)
    joined(loaded.main)
    path = ref.file
    if change == "truncated":
        os.truncate(path, ref.begin + 100)
    else:
        path.with_suffix(".new").write_bytes(path.read_bytes())
        path.with_suffix(".new").rename(path)
    with pytest.raises(CheckpointError, match=r"'5\.wide torch\.float32'.*truncated or replaced while being read"):
        joined(loaded.main)
    stream.close()


def test_an_input_output_error_in_a_column_block(large, monkeypatch):
    (ref,) = [ref for ref in large if ref.name == "5.wide torch.float32"]
    stream = stream_weights([plan_of(ref)], OPTIONS["threads"])
    loaded = next(stream)
    joined(loaded.main)

    def broken(fd, buffers, at):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(CheckpointError, match=r"'5\.wide torch\.float32' in .*cannot be read.*Input/output error"):
        joined(loaded.main)
    stream.close()
    assert descriptors() == set()


def test_mapped_blocks_and_their_count(large):
    (ref,) = [ref for ref in large if ref.name == "5.tall torch.bfloat16"]
    with stream_weights([plan_of(ref)], OPTIONS["threads"]) as stream:
        matrix = next(stream).main
        doubled = matrix.map(lambda block: 2 * block.float(), torch.float32)
        assert torch.equal(joined(doubled), 2 * load_tensor(ref).float())
        assert torch.equal(joined(matrix.to(torch.float64)), load_tensor(ref).double())
        assert str(matrix.count).startswith("read twice, in ")
