"""The cursor against the standard parser."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.read.checkpoint.json_cursor import MAX_DEPTH, JsonCursor, JsonError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(VALUES, st.sampled_from([None, 2]))
def test_skips_exactly_one_value(value, indent):
    raw = json.dumps(value, indent=indent).encode()
    cursor = JsonCursor(raw + b"  ,rest")
    cursor.skip_value("it")
    assert cursor.take(b",")
    assert cursor.data[cursor.position :] == b"rest"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet='{}[],:"0-1 \\ntrue.e', max_size=14))
def test_skips_nothing_that_is_not_json(text):
    cursor = JsonCursor(text.encode())
    try:
        cursor.skip_value("it")
        cursor.end()
    except JsonError:
        return
    json.loads(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(), st.booleans())
def test_strings_are_read_like_the_standard_parser(text, ascii_only):
    raw = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8")
    assert JsonCursor(raw).string("it", 10_000) == text


def test_long_strings_are_stepped_over_but_checked():
    cursor = JsonCursor(b'"' + b"a" * 100 + b'" [7]')
    cursor.skip_string("it")
    assert cursor.integers("number", 1) == [7]
    with pytest.raises(JsonError, match="longer than 99"):
        JsonCursor(b'"' + b"a" * 100 + b'"').string("it", 99)
    with pytest.raises(JsonError, match="UTF-8"):
        JsonCursor(b'"' + b"a" * 100 + b'\xc3"').skip_string("it")


@pytest.mark.parametrize("raw", [b"-1", b"1.5", b"1e3", b"01", b"true", b",", b'"1"', b"123456789012345678901"])
def test_integers_are_plain(raw):
    with pytest.raises(JsonError):
        JsonCursor(b"[" + raw + b"]]").integers("it", 9)


def test_depth_is_bounded():
    JsonCursor(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH).skip_value("it")
    with pytest.raises(JsonError, match="nested"):
        JsonCursor(b"[" * (MAX_DEPTH + 1)).skip_value("it")
