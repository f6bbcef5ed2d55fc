"""What the cursor says where bytes are not what was expected, and where it stands afterwards."""

from __future__ import annotations

import pytest

from spectrum_fast.read.checkpoint.json_cursor import JsonCursor, JsonError


def refusal(raw: bytes, read) -> str:
    with pytest.raises(JsonError) as caught:
        read(JsonCursor(raw))
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "read", "message"),
    [
        (b" 7", lambda c: c.expect(b"{", "it"), "expected it at byte 1, found '7'"),
        (b"  ", lambda c: c.expect(b"{", "it"), "expected it at byte 2, found the end"),
        (b"7" * 30, lambda c: c.expect(b"{", "it"), f"expected it at byte 0, found '{'7' * 24}'"),
        (b" x", lambda c: c.end(), "expected nothing more at byte 1, found 'x'"),
        (b" 7", lambda c: c.string("it", 9), "expected it (a string) at byte 1, found '7'"),
        (b' "abcd"', lambda c: c.string("it", 3), "it before byte 7 is longer than 3 bytes"),
        (
            b'"a\tb"',
            lambda c: c.string("it", 9),
            "expected the rest of it (closing quote, valid escapes, no control characters) at byte 2, found '\\tb\"'",
        ),
        (b'"a', lambda c: c.string("it", 9), "expected the rest of it (closing quote, valid escapes, no control "),
        (b' "\xff"', lambda c: c.string("it", 9), "it at byte 1 is not valid UTF-8 ('utf-8' codec"),
        (b' "\\ud800"', lambda c: c.string("it", 9), "it at byte 1 is not valid UTF-8 ('utf-8' codec"),
        (b' "ab\xff"', lambda c: c.string("it", 2), "the string at byte 1 is not valid UTF-8 ('utf-8' codec"),
        (
            b"[ -1]",
            lambda c: c.integers("it", 9),
            "expected it (a non-negative integer of at most 20 digits) at byte 2, ",
        ),
        (b" 7", lambda c: c.integers("it", 9), "expected it (a list) at byte 1, found '7'"),
        (b"[1 2]", lambda c: c.integers("it", 9), "expected ',' or ']' in it at byte 3, found '2]'"),
        (b"[1,]", lambda c: c.integers("it", 9), "expected it (a non-negative integer of at most 20 digits) at byte 3"),
        (b"[1,2,3]", lambda c: c.integers("it", 2), "it has more than 2 entries at byte 5"),
        (b" []", lambda c: list(c.keys("it", 9)), "expected it (an object) at byte 1, found '[]'"),
        (b"{7}", lambda c: list(c.keys("it", 9)), "expected a key of it (a string) at byte 1, found '7}'"),
        (b'{"abc":1}', lambda c: list(c.keys("it", 2)), "a key of it before byte 6 is longer than 2 bytes"),
        (b'{"a" 1}', lambda c: list(c.keys("it", 9)), "expected ':' after the key in it at byte 5, found '1}'"),
        (b'{"a":1}', lambda c: list(c.keys("it", 9)), "expected ',' or '}' in it at byte 5, found '1}'"),
        (b" ?", lambda c: c.skip_value("it"), "expected a value of it at byte 1, found '?'"),
        (b"[1 2]", lambda c: c.skip_value("it"), "expected ',' or ']' in it at byte 3, found '2]'"),
        (b"{7:1}", lambda c: c.skip_value("it"), "expected a key of it (a string) at byte 1, found '7:1}'"),
        (b'{"a" 1}', lambda c: c.skip_value("it"), "expected ':' after the key in it at byte 5, found '1}'"),
        (b'{"a":1,7}', lambda c: c.skip_value("it"), "expected a key of it (a string) at byte 7, found '7}'"),
        (b'["a', lambda c: c.skip_value("it"), "expected the rest of it (closing quote"),
        (b"[" * 65, lambda c: c.skip_value("it"), "it is nested deeper than 64 at byte 64"),
    ],
)
def test_messages_say_what_was_expected_and_where(raw, read, message):
    assert refusal(raw, read).startswith(message)


@pytest.mark.parametrize(
    ("raw", "read", "value", "position"),
    [
        (b'\t"ab" ', lambda c: c.string("it", 2), "ab", 5),
        (b'"\\u00e9"x', lambda c: c.string("it", 6), "é", 8),
        (b' "abc" ', lambda c: c.skip_string("it"), None, 6),
        (b' "\\n\\n" ', lambda c: c.skip_string("it"), None, 7),
        (b' ""', lambda c: c.skip_string("it"), None, 3),
        (b' ""', lambda c: c.string("it", 0), "", 3),
        (b"[ 70,0] ", lambda c: c.integers("it", 2), [70, 0], 7),
        (b"[" + b"9" * 20 + b"]", lambda c: c.integers("it", 1), [10**20 - 1], 22),
        (b" [ ] x", lambda c: c.integers("it", 0), [], 4),
        (b"[1 , 2]x", lambda c: c.integers("it", 2), [1, 2], 7),
        (b" { } x", lambda c: list(c.keys("it", 9)), [], 4),
        (b"  x", lambda c: c.take(b"x"), True, 3),
        (b"  x", lambda c: c.take(b"y"), False, 2),
        (b" { } x", lambda c: c.skip_value("it"), None, 4),
        (b'{"a":[{}, [ ]],"b":"\\"","c":-1.5e+3}x', lambda c: c.skip_value("it"), None, 36),
        (b"[[1,2],[3]],", lambda c: c.skip_value("it"), None, 11),
    ],
)
def test_exactly_one_value_is_taken(raw, read, value, position):
    cursor = JsonCursor(raw)
    assert read(cursor) == value
    assert cursor.position == position


def test_one_value_after_another():
    cursor = JsonCursor(b'"a" "b" "\\n" [1] [2]')
    assert [cursor.string("it", 9) for _ in range(3)] == ["a", "b", "\n"]
    assert [cursor.integers("it", 1) for _ in range(2)] == [[1], [2]]
    cursor.end()


def test_an_object_is_walked_key_by_key():
    cursor = JsonCursor(b'{"a": [1] , "a":[2]}x')
    assert [(key, cursor.integers("it", 1)) for key in cursor.keys("it", 9)] == [("a", [1]), ("a", [2])]
    assert cursor.position == 20


@pytest.mark.parametrize("pieces", [255, 256, 257, 1000])
def test_strings_of_many_pieces_end_where_they_end(pieces):
    raw = b'"' + b"\\n" * pieces + b'" [7]'
    cursor = JsonCursor(raw)
    assert cursor.string("it", 10_000) == "\n" * pieces
    assert cursor.integers("it", 1) == [7]


def test_text_that_is_stepped_over_is_checked_across_its_pieces(monkeypatch):
    monkeypatch.setattr("spectrum_fast.read.checkpoint.json_cursor._DECODE_STEP_BYTES", 3)
    good = "aé€😀".encode() * 5
    cursor = JsonCursor(b'"' + good + b'" [7]')
    cursor.skip_string("it")
    assert cursor.integers("it", 1) == [7]
    for bad in (good + b"\xff", good[:-1], good + b"\xc3", b"\xff" + good):
        assert "the string at byte 0 is not valid UTF-8" in refusal(
            b'"' + bad + b'"', lambda cursor: cursor.skip_string("it")
        )


def test_a_quote_after_what_is_stepped_over_is_not_decoded_with_it():
    cursor = JsonCursor(b'"ab" "\xff')
    cursor.skip_string("it")
    assert cursor.position == 4
