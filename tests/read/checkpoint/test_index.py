"""The index of a sharded checkpoint by itself: what it maps, and what each refusal says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.index import MAX_INDEX_BYTES, read_index


@pytest.fixture
def write(tmp_path: Path):
    def write(content: object) -> Path:
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_index(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_the_map_is_read_whatever_stands_beside_it(write):
    weight_map = {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}
    assert read_index(write({"metadata": {"a": [1, None]}, "weight_map": weight_map, "more": "x"})) == weight_map


def test_a_shards_name_is_kept_once(write):
    read = read_index(write('{"weight_map": {"a": "x.safetensors", "b": "\\u0078.safetensors"}}'))
    assert read["a"] is read["b"]


@pytest.mark.parametrize(
    ("shard", "problem"),
    [
        ("a/x.safetensors", "which is a path"),
        ("a\\x.safetensors", "which is a path"),
        ("x\0.safetensors", "which is a path"),
        ("x.bin", "which is not a safetensors file"),
        ("x" * 244 + ".safetensors", "which is longer than a file name can be"),
        ("é" * 122 + ".safetensors", "which is longer than a file name can be"),
    ],
)
def test_a_shard_that_is_no_plain_name_is_refused_with_the_reason(write, shard, problem):
    text = refusal(write({"weight_map": {"t": shard}}))
    assert f": broken index: tensor 't' is placed in {shard[:20]!r}"[:-1] in text
    assert f", {problem}; expected the plain name of a *.safetensors file beside the index; download" in text


def test_the_longest_file_name_is_read(write):
    longest = "x" * 243 + ".safetensors"
    assert read_index(write({"weight_map": {"t": longest}})) == {"t": longest}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "broken index: expected the index (an object) at byte 0, found '[]'; download or save it again"),
        ('{"weight_map": 3}', "broken index: expected weight_map (an object) at byte 15, found '3}'"),
        ('{"metadata": nan}', "expected a value of 'metadata' in the index at byte 13, found 'nan}'"),
        ('{"weight_map": {"t": 1}}', "expected the file of tensor 't' (a string) at byte 21"),
        ('{"weight_map": {"t": "x.safetensors", "t": "x.safetensors"}}', "tensor 't' occurs twice in weight_map"),
        ('{"weight_map": {"t": "x.safetensors"}, "weight_map": {}}', "weight_map occurs twice"),
        ('{"weight_map": {"t": "x.safetensors"}}}', "expected nothing more at byte 38, found '}'"),
        ('{"weight_map": {}}', "expected an object 'weight_map' that names at least one tensor; save it again"),
        ("{}", "expected an object 'weight_map' that names at least one tensor; save it again"),
    ],
)
def test_every_malformation_is_named(write, text, reason):
    assert reason in refusal(write(text))


@pytest.mark.parametrize(("extra", "reason"), [(0, None), (1, "before byte .* is longer than")])
def test_names_and_file_names_have_a_longest_length(write, extra, reason):
    good = {"weight_map": {"n" * ((1 << 16) + extra): "x.safetensors"}}
    if reason is None:
        assert len(read_index(write(good))) == 1
    else:
        with pytest.raises(CheckpointError, match=f"a key of weight_map {reason} 65536 bytes"):
            read_index(write(good))
        with pytest.raises(CheckpointError, match=f"a key of the index {reason} 65536 bytes"):
            read_index(write({"n" * ((1 << 16) + extra): 1}))
    long_shard = {"weight_map": {"t": "x" * (4096 + extra)}}
    with pytest.raises(CheckpointError, match="which is not a safetensors" if reason is None else f"{reason} 4096"):
        read_index(write(long_shard))


def test_an_index_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    with path.open("wb") as file:
        file.truncate(MAX_INDEX_BYTES + 1)
    assert f"at most {MAX_INDEX_BYTES}" in refusal(path)
