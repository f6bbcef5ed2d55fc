"""What a refused header says: file, tensor, expected, found, what to do; and the limits at their edges."""

from __future__ import annotations

import hashlib
import json

import pytest

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import header as header_module
from spectrum_fast.read.checkpoint.dtypes import DTYPE_BITS
from spectrum_fast.read.checkpoint.header import MAX_COUNT, read_header


def entry(dtype="U8", shape=(1,), begin=0, end=1) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def spelt_out(name: str, fields: str) -> bytes:
    """An entry whose name is written with an escape, so that it takes the general way through the parser."""
    return b'{"\\u%04x%s":{%s}}' % (ord(name[0]), name[1:].encode(), fields.encode())


AGAIN = "; download or save the file again"


@pytest.mark.parametrize("spelling", ["\\n", "\\u0000", "\\u001b", "\x7f", "\u0085", "\\u2028", "\u202e"])
def test_a_name_that_would_act_where_it_is_written_is_refused_with_its_place(write_raw, spelling):
    fields = json.dumps(entry())[1:-1]
    raw = f'{{"a":{{{fields}}},"x{spelling}trust_remote_code: true":{{{fields}}}}}'.encode()
    character = json.loads(f'"{spelling}"')
    name = f"x{character}trust_remote_code: true"
    assert refusal(write_raw(raw, bytes(1))) == (
        f"broken safetensors header: tensor 2, {name!r}: expected a name of printable characters, found "
        f"{character!r} as its character 2{AGAIN}"
    )


@pytest.mark.parametrize("usual", [True, False])
@pytest.mark.parametrize(
    ("dtype", "shape", "offsets", "reason"),
    [
        ("F32", [2], [0, 7], "tensor 'abc': shape [2] of F32 needs 8 bytes, data_offsets [0, 7] hold 7"),
        ("F32", [2, 3], [8, 15], "tensor 'abc': shape [2, 3] of F32 needs 24 bytes, data_offsets [8, 15] hold 7"),
        ("U8", [1], [3, 3], "tensor 'abc': shape [1] of U8 needs 1 bytes, data_offsets [3, 3] hold 0"),
        ("F4", [3], [0, 1], "tensor 'abc': shape [3] of F4 is 12 bits, not a whole number of bytes"),
        ("U8", [1], [5, 4], "tensor 'abc': data_offsets [5, 4] end before they begin"),
        ("F7", [1], [0, 1], f"tensor 'abc' has the unknown dtype 'F7'; expected one of {', '.join(DTYPE_BITS)}"),
        ("U8", [2**32, 2**31], [0, 1], "tensor 'abc': shape [4294967296, 2147483648] overflows 63 bits"),
    ],
)
def test_an_entry_that_contradicts_itself(write_raw, usual, dtype, shape, offsets, reason):
    fields = f'"dtype":"{dtype}","shape":{json.dumps(shape)},"data_offsets":{json.dumps(offsets)}'
    raw = b'{"abc":{%s}}' % fields.encode() if usual else spelt_out("abc", fields)
    assert refusal(write_raw(raw, bytes(16))) == f"broken safetensors header: {reason}{AGAIN}"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":{}}', "tensor 'a' lacks data_offsets, dtype, shape"),
        (b'{"a":{"dtype":"U8"}}', "tensor 'a' lacks data_offsets, shape"),
        (b'{"a":{"shape":[],"shape":[]}}', "tensor 'a' has the field 'shape' twice"),
        (b'{"a":{"size":1}}', "tensor 'a' has an unknown field 'size'; expected dtype, shape and data_offsets"),
        (b'{"a":{"dtype":8}}', "expected dtype of tensor 'a' (a string) at byte 14, found '8}}'"),
        (b'{"a":{"shape":8}}', "expected shape of tensor 'a' (a list) at byte 14, found '8}}'"),
        (b'{"a":{"data_offsets":[1}}', "expected ',' or ']' in data_offsets of tensor 'a' at byte 23, found '}}'"),
        (b'{"a":{"data_offsets":[1,2,3]}}', "data_offsets of tensor 'a' has more than 2 entries at byte 26"),
        (
            b'{"a":{"data_offsets":[],"dtype":"U8","shape":[]}}',
            "tensor 'a': data_offsets must be [begin, end], found []",
        ),
        (b'{"a" 1}', "expected ':' after the key in the header at byte 5, found '1}'"),
        (b'{"a":{"dtype" 1}}', "expected ':' after the key in tensor 'a' at byte 14, found '1}}'"),
        (b'{"a":1}', "expected tensor 'a' (an object) at byte 5, found '1}'"),
        (b'{"__metadata__":{"k":1}}', "expected the value of 'k' in __metadata__ (a string) at byte 21, found '1}}'"),
        (b'{"__metadata__":{1}}', "expected a key of __metadata__ (a string) at byte 17, found '1}}'"),
        (b'{"__metadata__":{},"__metadata__":{}}', "__metadata__ occurs twice"),
        (b'{"__metadata__":{} 1}', "expected ',' or '}' in the header at byte 19, found '1}'"),
        (b"{1}", "expected a key of the header (a string) at byte 1, found '1}'"),
        (
            b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}x',
            "expected nothing more at byte 53, found 'x'",
        ),
        (b"{} x", "expected nothing more at byte 3, found 'x'"),
        (
            b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
            "a key of the header at byte 1 is not valid UTF-8",
        ),
    ],
)
def test_broken_json_says_what_was_expected_where(write_raw, raw, reason):
    text = refusal(write_raw(raw))
    assert text.startswith(f"broken safetensors header: {reason}")
    assert text.endswith(AGAIN)


@pytest.mark.parametrize(
    ("tensors", "data_bytes", "reason"),
    [
        (
            {"a": entry(), "b": entry(begin=3, end=4)},
            4,
            "2 bytes before tensor 'b' (data offsets 1 to 3) belong to no tensor; the header does not match the data: "
            "save the file again",
        ),
        (
            {"b": entry(shape=[3], begin=2, end=5), "a": entry(shape=[3], begin=0, end=3)},
            5,
            "tensors 'a' and 'b' overlap (data offset 2 is before 3); save the file again",
        ),
        (
            {"a": entry(begin=3, end=4), "b": entry(shape=[5], end=5)},
            5,
            "tensors 'b' and 'a' overlap (data offset 3 is before 5); save the file again",
        ),
        (
            {"a": entry(shape=[8], end=8)},
            5,
            "tensor 'a' ends at data offset 8, but the file holds 5 bytes of data; the file is truncated: download or "
            "save it again",
        ),
        (
            {"a": entry(shape=[8], end=8)},
            11,
            "3 trailing bytes after the last tensor belong to no tensor; the file was appended to or its header is "
            "wrong: save it again",
        ),
    ],
)
def test_tensors_that_do_not_tile_the_data(write_raw, tensors, data_bytes, reason):
    assert refusal(write_raw(tensors, bytes(data_bytes))) == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected a safetensors file (8 bytes of header length, header, data), found only 0 bytes; the file is "),
        (bytes(8), "header length 0 is too short for a JSON object; save the file again"),
        (
            (2).to_bytes(8, "little"),
            "header length 2 reaches past the end of the file (8 bytes); the file is truncated: download or save it "
            "again",
        ),
        (b"1234567", "found only 7 bytes; the file is truncated or empty: download or save it again"),
        ((1).to_bytes(8, "little") + b"{", "header length 1 is too short for a JSON object; save the file again"),
        ((2).to_bytes(8, "little") + b"[]", "expected a header that begins with '{', found byte 0x5b; this is not a "),
        (
            (3).to_bytes(8, "little") + b"{}",
            "header length 3 reaches past the end of the file (10 bytes); the file is truncated: download or save it "
            "again",
        ),
        (
            (100_000_001).to_bytes(8, "little") + b"{}",
            "header length 100000001 is over the limit of 100000000 bytes; this is not a safetensors file",
        ),
    ],
)
def test_a_start_that_is_no_safetensors_file(tmp_path, content, reason):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert reason in refusal(path)


def test_a_failing_disk_is_said(write_raw, monkeypatch):
    def fails(*_):
        raise OSError(5, "Input/output error")

    path = write_raw({})
    monkeypatch.setattr(header_module, "read_bytes", fails)
    assert refusal(path) == "cannot be read: Input/output error; check the disk"


def test_a_file_that_shrinks_while_it_is_read_is_said(write_raw, monkeypatch):
    path = write_raw({"a": entry()}, bytes(1))
    whole = header_module.read_bytes

    def shrinks(file, count, offset):
        return whole(file, count, offset) if offset == 0 else whole(file, count, offset)[:-1]

    monkeypatch.setattr(header_module, "read_bytes", shrinks)
    assert refusal(path) == "ended inside its header: truncated or replaced while being read"


def test_the_smallest_file_is_read(write_raw):
    path = write_raw({})
    assert path.stat().st_size == 10
    read = read_header(path)
    assert (read.path, read.tensors, read.metadata, read.data_begin) == (path, (), {}, 10)


def test_offsets_sizes_and_digest_are_those_of_the_file(write_raw):
    path = write_raw({"b": entry("F32", [3], 2, 14), "a": entry("U8", [2], 0, 2)}, bytes(14))
    raw = path.read_bytes()
    read = read_header(path)
    found = [(ref.name, ref.file, ref.dtype, ref.shape, ref.begin, ref.nbytes) for ref in read.tensors]
    begin = len(raw) - 14
    assert found == [("a", path, "U8", (2,), begin, 2), ("b", path, "F32", (3,), begin + 2, 12)]
    assert read.digest == hashlib.sha256(raw[:begin]).hexdigest()
    assert all(ref.stamp == read.stamp for ref in read.tensors)


def test_an_empty_tensor_may_be_named_after_the_one_that_begins_where_it_lies(write_raw):
    read = read_header(write_raw({"a": entry(), "z": entry(shape=[0], end=0)}, bytes(1)))
    assert [ref.name for ref in read.tensors] == ["z", "a"]


@pytest.mark.parametrize("usual", [True, False])
def test_shapes_up_to_63_bits_are_counted(write_raw, usual):
    """With zero extents the file is small, whatever the others say."""
    shape = [MAX_COUNT, 0]
    fields = f'"dtype":"U8","shape":{json.dumps(shape)},"data_offsets":[0,0]'
    raw = b'{"abc":{%s}}' % fields.encode() if usual else spelt_out("abc", fields)
    assert read_header(write_raw(raw)).tensors[0].shape == (MAX_COUNT, 0)


def test_a_limit_holds_at_its_edge(write_raw, monkeypatch):
    tensors = {f"t{i}": entry(shape=[0], end=0) for i in range(5)}
    usual = json.dumps(tensors).encode()
    spelt = usual.replace(b"offsets", b"offset\\u0073")
    monkeypatch.setattr(header_module, "MAX_TENSORS", 5)
    assert len(read_header(write_raw(usual)).tensors) == len(read_header(write_raw(spelt)).tensors) == 5
    monkeypatch.setattr(header_module, "MAX_TENSORS", 4)
    for raw in (usual, spelt):
        assert "it names more than 4 tensors, which no published model comes near" in refusal(write_raw(raw))


def test_metadata_has_a_limit(write_raw, monkeypatch):
    monkeypatch.setattr(header_module, "_MAX_METADATA_ENTRIES", 2)
    assert read_header(write_raw({"__metadata__": {"a": "", "b": ""}})).tensors == ()
    assert "__metadata__ has more than 2 entries" in refusal(write_raw({"__metadata__": {"a": "", "b": "", "c": ""}}))


@pytest.mark.parametrize("extra", [0, 1])
def test_names_up_to_64_kib_are_read(write_raw, extra):
    name = "n" * ((1 << 16) + extra)
    for count, header, what in (
        (1, {name: entry(shape=[0], end=0)}, "a key of the header"),
        (0, {"__metadata__": {name: ""}}, "a key of __metadata__"),
    ):
        path = write_raw(header)
        if extra:
            assert what in (text := refusal(path))
            assert "is longer than 65536 bytes" in text
        else:
            assert len(read_header(path).tensors) == count


def test_the_shape_of_one_tensor_is_not_that_of_another(write_raw):
    """Shapes are remembered by their text."""
    shapes = [(0, i % 5, i % 3) for i in range(20)]
    read = read_header(write_raw({f"t{i:02}": entry(shape=shape, end=0) for i, shape in enumerate(shapes)}))
    assert [ref.shape for ref in sorted(read.tensors, key=lambda ref: ref.name)] == shapes
