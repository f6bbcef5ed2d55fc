"""Random bytes and mutated headers: a header that agrees with the library, or CheckpointError, and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.dtypes import DTYPE_BITS
from spectrum_fast.read.checkpoint.header import Header, read_header
from spectrum_fast.read.checkpoint.index import read_index

FOLDER = tempfile.TemporaryDirectory(prefix="header-fuzz-")
QUICK = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
GOOD = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b\u00e9": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]},
        "c": {"dtype": "U8", "shape": [0, 7], "data_offsets": [26, 26]},
    }
).encode()
FRAGMENTS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"0",
    b"-1",
    b"1e9",
    b"null",
    b"\xff",
    b" ",
    b"26",
    b"\\u0061",
]


def check(raw: bytes, data: bytes) -> Header | None:
    path = Path(FOLDER.name, "m.safetensors")
    path.write_bytes(raw + data)
    try:
        ours = read_header(path)
    except CheckpointError:
        return None
    with safe_open(path, "pt") as theirs:
        assert {ref.name for ref in ours.tensors} == set(theirs.keys())
        for ref in ours.tensors:
            view = theirs.get_slice(ref.name)
            assert (list(ref.shape), ref.dtype) == (view.get_shape(), view.get_dtype())
    return ours


def framed(raw: bytes) -> bytes:
    return len(raw).to_bytes(8, "little") + raw


def test_the_seed_is_good():
    header = check(framed(GOOD), bytes(26))
    assert header is not None
    assert len(header.tensors) == 3


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes(raw):
    check(raw, b"")


@QUICK
@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_header(raw, size):
    check(framed(b"{" + raw), bytes(size))


@QUICK
@given(
    st.lists(
        st.tuples(st.integers(0, len(GOOD)), st.integers(0, 4), st.sampled_from(FRAGMENTS) | st.binary(max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0, 24, 26, 27]),
)
def test_mutations_of_a_good_header(edits, size):
    raw = GOOD
    for place, removed, added in edits:
        raw = raw[:place] + added + raw[place + removed :]
    check(framed(raw), bytes(size))


SHAPES = st.lists(st.integers(0, 4) | st.sampled_from([2**31, 2**63, 2**64, -1, True, 1.0]), max_size=4)
OFFSETS = st.lists(st.integers(0, 40) | st.sampled_from([-1, 2**63, None]), min_size=1, max_size=3)


@QUICK
@given(
    st.dictionaries(
        st.text(max_size=4) | st.just("__metadata__"),
        st.fixed_dictionaries(
            {"dtype": st.sampled_from([*DTYPE_BITS, "F33"]), "shape": SHAPES, "data_offsets": OFFSETS}
        ),
        max_size=3,
    ),
    st.integers(0, 40),
    st.booleans(),
)
def test_well_formed_json_with_any_values(header, size, ascii_only):
    check(framed(json.dumps(header, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")), bytes(size))


PRINTABLE = st.text(st.characters(categories=["L", "M", "N", "P", "S"]).filter(str.isprintable), min_size=1, max_size=3)


@QUICK
@given(st.permutations([("F16", 2), ("F32", 4), ("F4", 1), ("F64", 0), ("BF16", 6)]), PRINTABLE)
def test_valid_headers_are_accepted(parts, stem):
    header, place = {}, 0
    for number, (dtype, size) in enumerate(parts):
        shape = [size * 8 // DTYPE_BITS[dtype]]
        header[f"{stem}{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    checked = check(framed(json.dumps(header).encode("utf-8")), bytes(place))
    assert checked is not None
    assert len(checked.tensors) == 5


@QUICK
@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["weight_map", "metadata", "a"]), inner)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_index(raw):
    path = Path(FOLDER.name, "model.safetensors.index.json")
    path.write_bytes(raw)
    try:
        weight_map = read_index(path)
    except CheckpointError:
        return
    assert weight_map == json.loads(raw)["weight_map"]
