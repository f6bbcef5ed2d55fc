"""The header parser against the library on good files, and byte by byte on bad ones."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.dtypes import DTYPE_BITS
from spectrum_fast.read.checkpoint.header import MAX_HEADER_BYTES, MAX_TENSORS, read_header


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_agrees_with_the_library_on_a_file_it_wrote(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = {
        "scalar": torch.tensor(3.0),
        "one": torch.arange(5, dtype=torch.float16),
        "two": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "three.weight": torch.arange(24, dtype=torch.float64).reshape(2, 3, 4),
        "empty": torch.empty(0, 4),
        'naïve "quoted" \\ name 😀': torch.ones(1),
        "ids": torch.arange(3),
    }
    save_file(tensors, path, metadata={"format": "pt", "note": "ä\n"})
    header = read_header(path)
    assert {ref.name for ref in header.tensors} == set(tensors)
    with safe_open(path, "pt") as theirs:
        for ref in header.tensors:
            view = theirs.get_slice(ref.name)
            assert list(ref.shape) == view.get_shape()
            assert ref.dtype == view.get_dtype()
            assert ref.nbytes == tensors[ref.name].numel() * tensors[ref.name].element_size()
            assert ref.element_count == tensors[ref.name].numel()
    begins = [ref.begin for ref in header.tensors]
    assert begins == sorted(begins)
    assert begins[0] == header.data_begin
    assert header.stamp.size_bytes == path.stat().st_size
    assert header.tensors[0].stamp == header.stamp


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_has_the_librarys_size(write_raw, dtype):
    path = write_raw({"a": entry(dtype, [8], 0, DTYPE_BITS[dtype])}, bytes(DTYPE_BITS[dtype]))
    assert read_header(path).tensors[0].nbytes == DTYPE_BITS[dtype]
    with safe_open(path, "pt") as theirs:
        assert list(theirs.keys()) == ["a"]


def test_pretty_printed_other_field_order_and_padding_are_read(write_raw):
    one = json.dumps({"a": entry(), "b": entry(begin=8, end=16)}, indent=4).encode() + b"   "
    two = (
        b'{"b":{"data_offsets":[8,16],"shape":[2],"dtype":"F32"},'
        b'"\\u0061":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}\n'
    )
    for raw in (one, two):
        header = read_header(write_raw(raw, bytes(16)))
        assert [(ref.name, ref.begin, ref.nbytes) for ref in header.tensors] == [
            ("a", 8 + len(raw), 8),
            ("b", 16 + len(raw), 8),
        ]


def test_offsets_in_any_order_come_out_sorted_and_empty_tensors_share_a_place(write_raw):
    path = write_raw(
        {"c": entry(begin=8, end=16), "z": entry(shape=[0, 2**40], begin=8, end=8), "a": entry()}, bytes(16)
    )
    assert [ref.name for ref in read_header(path).tensors] == ["a", "z", "c"]


def test_no_tensors_is_a_valid_header(write_raw):
    assert read_header(write_raw({})).tensors == ()
    assert read_header(write_raw({"__metadata__": {"a": "b"}})).tensors == ()


def test_unaligned_data_is_read(write_raw):
    path = write_raw({"a": entry("U8", [1], 0, 1), "b": entry("F32", [1], 1, 5)}, bytes(5))
    first, second = read_header(path).tensors
    assert second.begin == first.begin + 1


def test_the_digest_follows_the_header_only(write_raw):
    first = read_header(write_raw({"a": entry()}, bytes(8))).digest
    assert read_header(write_raw({"a": entry()}, b"12345678", name="n.safetensors")).digest == first
    assert read_header(write_raw({"b": entry()}, bytes(8))).digest != first


MALFORMED = {
    "not an object": (b"[]", b"", "begins with"),
    "white space first": (b' {"a":1}', b"", "begins with"),
    "not JSON": (b"{nope", b"", "a key of the header"),
    "cut JSON": (b'{"a":{"dtype":"F32"', b"", "the end"),
    "text after": (b'{}{"a":1}', b"", "nothing more"),
    "NUL padding": (b"{}\0\0", b"", "nothing more"),
    "trailing comma": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}', b"", "a key of the header"),
    "invalid UTF-8": (b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "UTF-8"),
    "invalid UTF-8 with escape": (b'{"\\n\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "UTF-8"),
    "lone surrogate": (b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "UTF-8"),
    "control character": (b'{"a\n":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "control"),
    "bad escape": (b'{"\\x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "escapes"),
    "duplicate tensor": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"12",
        "'a' occurs twice",
    ),
    "duplicate through an escape": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"12",
        "'a' occurs twice",
    ),
    "duplicate field": (b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "'dtype' twice"),
    "duplicate metadata": (b'{"__metadata__":{},"__metadata__":{}}', b"", "__metadata__ occurs twice"),
    "metadata no object": (b'{"__metadata__":"x"}', b"", "__metadata__ (an object)"),
    "metadata no string": ({"__metadata__": {"a": 1}}, b"", "the value of 'a'"),
    "metadata like a tensor": ({"__metadata__": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}, b"", "'shape'"),
    "entry no object": ({"a": [1]}, b"", "tensor 'a' (an object)"),
    "unknown field": ({"a": {**entry("U8", [0], 0, 0), "x": 1}}, b"", "unknown field 'x'"),
    "no dtype": ({"a": {"shape": [0], "data_offsets": [0, 0]}}, b"", "lacks dtype"),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 0]}}, b"", "lacks shape"),
    "no offsets": ({"a": {"dtype": "U8", "shape": [0]}}, b"", "lacks data_offsets"),
    "unknown dtype": ({"a": entry("F7", [0], 0, 0)}, b"", "unknown dtype 'F7'"),
    "lower case dtype": ({"a": entry("f32", [0], 0, 0)}, b"", "unknown dtype 'f32'"),
    "dtype no string": ({"a": {"dtype": 7, "shape": [0], "data_offsets": [0, 0]}}, b"", "dtype of tensor 'a'"),
    "negative extent": ({"a": entry("U8", [-1], 0, 1)}, b"1", "found '-1"),
    "boolean extent": ({"a": entry("U8", [True], 0, 1)}, b"1", "found 'true"),
    "fractional extent": ({"a": entry("U8", [1.0], 0, 1)}, b"1", "found '1.0"),
    "exponent extent": (b'{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', b"1", "found '1e0"),
    "leading zero": (b'{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', b"1", "shape of tensor 'a'"),
    "null shape": ({"a": {"dtype": "U8", "shape": None, "data_offsets": [0, 1]}}, b"1", "found 'null"),
    "huge extent": ({"a": entry("U8", [2**63], 0, 1)}, b"1", "overflows"),
    "thousand digits": (
        b'{"a":{"dtype":"U8","shape":[' + b"9" * 10_000 + b'],"data_offsets":[0,1]}}',
        b"1",
        "20 digits",
    ),
    "overflowing product": ({"a": entry("U8", [2**32, 2**32], 0, 0)}, b"", "overflows"),
    "product that wraps to 0": ({"a": entry("F32", [2**33, 2**31], 0, 0)}, b"", "overflows"),
    "overflow hidden by zero": ({"a": entry("U8", [2**40, 2**40, 0], 0, 0)}, b"", "overflows"),
    "too many extents": ({"a": entry("U8", [1] * 65, 0, 1)}, b"1", "more than 64"),
    "one offset": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}', b"", "[begin, end]"),
    "three offsets": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}', b"", "more than 2"),
    "negative offset": ({"a": entry("U8", [1], -1, 0)}, b"", "data_offsets of tensor 'a'"),
    "reversed offsets": ({"a": entry("U8", [1], 1, 0)}, b"1", "end before they begin"),
    "too few bytes": ({"a": entry("F32", [2], 0, 7)}, b"1234567", "needs 8 bytes"),
    "too many bytes": ({"a": entry("F32", [2], 0, 9)}, b"123456789", "needs 8 bytes"),
    "half a byte": ({"a": entry("F4", [3], 0, 1)}, b"1", "12 bits"),
    "past the end": ({"a": entry("F32", [2], 0, 8)}, b"1234", "truncated"),
    "gap at the start": ({"a": entry("U8", [1], 1, 2)}, b"12", "belong to no tensor"),
    "gap inside": ({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"123", "1 bytes before tensor 'b'"),
    "overlap": ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"123", "'a' and 'b' overlap"),
    "same bytes": ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 0, 2)}, b"12", "overlap"),
    "inside another": ({"a": entry("U8", [9], 0, 9), "b": entry("U8", [1], 4, 5)}, b"123456789", "overlap"),
    "trailing bytes": ({"a": entry("U8", [1], 0, 1)}, b"12", "1 trailing bytes"),
    "data without tensors": ({}, b"1", "1 trailing bytes"),
    "offset of 10**19": ({"a": entry("U8", [0], 10**19, 10**19)}, b"", "belong to no tensor"),
    "deep nesting": (b'{"a":' + b"[" * 200_000, b"", "tensor 'a'"),
    "deep objects": (b'{"a":' * 200_000, b"", "unknown field 'a'"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_headers_are_refused_with_their_reason(write_raw, case):
    raw, data, reason = MALFORMED[case]
    path = write_raw(raw, data)
    started = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    message = str(caught.value)
    assert reason in message
    assert str(path) in message
    assert len(message) < 1000
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (0, "too short"),
        (1, "too short"),
        (500, "past the end"),
        (MAX_HEADER_BYTES, "past the end"),
        (MAX_HEADER_BYTES + 1, "over the limit"),
        (2**63, "over the limit"),
        (2**64 - 1, "over the limit"),
    ],
)
def test_lying_lengths(write_raw, length, reason):
    with pytest.raises(CheckpointError, match=reason):
        read_header(write_raw({"a": entry()}, bytes(8), length=length))


def test_a_length_that_is_one_off_is_refused(write_raw):
    raw = json.dumps({"a": entry()}).encode()
    for length in (len(raw) - 1, len(raw) + 1):
        with pytest.raises(CheckpointError):
            read_header(write_raw(raw, bytes(8), length=length))


def test_truncation_at_every_byte_is_refused(tmp_path):
    path = tmp_path / "whole.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path, metadata={"k": "v"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_header(path)
    path.write_bytes(whole)
    assert len(read_header(path).tensors) == 2


def test_not_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path, reason in (
        (tmp_path / "pipe.safetensors", "a named pipe"),
        (tmp_path, "a directory"),
        (Path("/dev/zero"), "a character device"),
        (tmp_path / "absent", "No such file"),
        (Path("nul\0byte"), "null byte"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            read_header(path)


def traced_peak_bytes(path):
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_header(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HOSTILE_BODIES = {
    "zeros": b'{"a":{"dtype":"U8","shape":[' + b"0," * 5_000_000,
    "brackets": b'{"a":' + b"[" * 10_000_000,
    "one string": b'{"' + b"a" * 10_000_000,
    "one closed string": b'{"' + b"a" * 10_000_000 + b'":{}}',
    "metadata entries": b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(1_000_000)) + b"}}",
    "wide metadata": b'{"__metadata__":{"a":"' + "😀".encode() * 1000 + b"a" * 10_000_000 + b'"},"b":0}',
    "spaces": b"{" + b" " * 10_000_000,
}


@pytest.mark.parametrize("case", HOSTILE_BODIES)
def test_a_hostile_header_costs_little_more_than_its_own_bytes(write_raw, case):
    raw = HOSTILE_BODIES[case]
    path = write_raw(raw)
    started = time.process_time()
    assert traced_peak_bytes(path) < 2 * len(raw) + (8 << 20)
    assert time.process_time() - started < 5


def test_many_escapes_do_not_cost_a_multiple(write_raw):
    raw = b'{"__metadata__":{"a":"' + b'\\"' * 2_000_000 + b'"},"b":0}'
    assert traced_peak_bytes(write_raw(raw)) < 3 * len(raw)


def test_a_sparse_file_of_zeros_is_refused_before_anything_is_read(tmp_path):
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(MAX_HEADER_BYTES.to_bytes(8, "little"))
        file.truncate(1 << 40)
    assert traced_peak_bytes(path) < 1 << 20


def test_a_hundred_thousand_tensors_take_a_moment(write_raw):
    count = 100_000
    header = {f"t{i}": entry("U8", [1], i, i + 1) for i in range(count)}
    path = write_raw(header, bytes(count))
    started = time.process_time()
    assert len(read_header(path).tensors) == count
    assert time.process_time() - started < 10


def test_a_million_tensors_are_refused_in_a_moment_and_in_little_memory(write_raw):
    one = b'"%07d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    raw = b"{" + b",".join(one % (i, i, i + 1) for i in range(1_000_000)) + b"}"
    path = write_raw(raw, bytes(1_000_000))
    started = time.process_time()
    with pytest.raises(CheckpointError, match=f"m.safetensors.*more than {MAX_TENSORS} tensors"):
        read_header(path)
    assert time.process_time() - started < 1
    assert traced_peak_bytes(path) < 200e6


@pytest.mark.slow  # test_header_messages.py has the same limit, set lower
def test_escapes_do_not_hide_a_million_tensors(write_raw):
    one = b'"%07d":{"dtype":"U8","shape":[0],"data_offset\\u0073":[0,0]}'
    path = write_raw(b"{" + b",".join(one % i for i in range(MAX_TENSORS + 1)) + b"}")
    with pytest.raises(CheckpointError, match="more than"):
        read_header(path)
