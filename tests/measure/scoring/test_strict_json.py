"""JSON read with suspicion: what each refusal says, and what passes."""

from __future__ import annotations

import math

import pytest

from spectrum_fast.errors import ScanFileError, SelectionError
from spectrum_fast.measure.scoring.strict_json import parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON, found an empty file (0 characters, all blank); the scan that "),
        (" \n\t", "expected JSON, found an empty file (3 characters, all blank); the scan that "),
        ('{"a": 1,\n "b" 2}', "expected JSON, found at line 2, column 6: Expecting ':' delimiter"),
        ('{"b": 1, "a": 2, "a": 3}', "expected each key once in an object, found 'a' twice"),
        ('[{"x": {"b": 2, "b": 3}}]', "expected each key once in an object, found 'b' twice"),
        ("[" * 200_000, "expected plain JSON, found nesting too deep to read"),
        ("1" * 5000, "expected JSON, found an unreadable number: Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place(text, message):
    with pytest.raises(SelectionError) as caught:
        parse_json(text, "s.json", SelectionError)
    assert str(caught.value).startswith(f"s.json: {message}")


def test_an_empty_file_says_what_to_do():
    with pytest.raises(ScanFileError, match=r"did not finish: get or make it again$"):
        parse_json("", "s.json", ScanFileError)


def test_objects_keep_their_order_and_the_words_that_json_lacks_are_numbers():
    document = parse_json('{"b": [1, -Infinity], "a": {"b": null, "c": NaN}}', "s.json", ScanFileError)
    assert list(document) == ["b", "a"]
    assert document["b"] == [1, -math.inf]
    assert math.isnan(document["a"]["c"])
    assert parse_json("{}", "s.json", ScanFileError) == {}
