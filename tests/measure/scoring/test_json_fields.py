"""The place of a wrong value in messages, and what each check lets through."""

from __future__ import annotations

import math
import re

import pytest

from spectrum_fast.checks import COUNT, COUNTS, FLAG, NAME, NAMES, REAL, SHAPE, TEXT
from spectrum_fast.errors import ScanFileError
from spectrum_fast.measure.scoring.json_fields import ABSENT, Place

FILE = Place("s.json", ScanFileError)
ENTRY = Place("s.json", ScanFileError, "modules[3] (lm_head)")


def test_an_error_says_file_entry_field_and_both_values():
    assert str(FILE.wrong("model", "a text", 3)) == "s.json: field 'model': expected a text, found 3"
    assert str(ENTRY.wrong("snr", "a number", None)) == (
        "s.json: modules[3] (lm_head): field 'snr': expected a number, found null"
    )
    assert str(FILE.wrong("model", "a text", ABSENT)).endswith("expected a text, found nothing")
    assert isinstance(FILE.wrong("model", "a text", 3), ScanFileError)


@pytest.mark.parametrize(("length", "shown"), [(78, '"' + "x" * 78 + '"'), (79, '"' + "x" * 76 + "...")])
def test_a_long_value_is_cut(length, shown):
    assert str(FILE.wrong("model", "a number", "x" * length)).endswith(f"found {shown}")


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (REAL, [0, 0.0, 2, 1e308], [-1, -0.5, math.nan, math.inf, True, "1", None, 10**400, [1.0]]),
        (COUNT, [0, 3], [-1, 1.0, True, "1", None]),
        (COUNTS, [[], [0, 3]], [[1, -1], [1.5], [True], (1, 2), {"1": 1}, "12", 3]),
        (SHAPE, [[], [0, 3]], [[1, -1], "12", None]),
        (NAME, ["a"], ["", None, 3, ["a"]]),
        (NAMES, [[], ["a", "b"]], [["a", ""], [3], "ab", None]),
        (TEXT, ["", "a"], [None, 3]),
        (FLAG, [True, False], [0, 1, None, "true"]),
    ],
)
def test_what_each_check_lets_through(check, good, bad):
    for value in good:
        assert FILE.read({"x": value}, "x", check) == value
    for value in bad:
        with pytest.raises(ScanFileError, match=f"field 'x': expected {re.escape(check.expected)}, found"):
            FILE.read({"x": value}, "x", check)
    nullable = check.or_null()
    assert nullable.expected == f"{check.expected} or null"
    assert all(nullable.test(value) for value in (*good, None))
    assert not any(nullable.test(value) for value in bad if value is not None)


def test_a_default_stands_for_what_is_not_there_and_not_for_null():
    assert FILE.read({}, "x", COUNT, 7) == 7
    assert FILE.read({}, "x", COUNT, None) is None
    with pytest.raises(ScanFileError, match="found null"):
        FILE.read({"x": None}, "x", COUNT, 7)
    with pytest.raises(ScanFileError, match="found nothing"):
        FILE.read({}, "x", COUNT)


def test_known_fields_are_kept_lists_become_tuples_and_absent_ones_stay_away():
    values = {"a": [1, 2], "b": "t", "other": 1}
    checks = {"a": COUNTS, "b": TEXT, "c": TEXT}
    assert FILE.read_all(values, checks, frozenset({"c"})) == {"a": (1, 2), "b": "t"}
    with pytest.raises(ScanFileError, match="field 'c': expected a text, found nothing"):
        FILE.read_all(values, checks)


def test_entries_are_named_by_number_and_by_name_where_they_have_one():
    document = {"modules": [{"name": "a"}, {"name": 3}, {}]}
    places = [place.entry for place, _ in FILE.entries(document, "modules")]
    assert places == ["modules[0] (a)", "modules[1]", "modules[2]"]
    assert [values for _, values in FILE.entries(document, "modules")] == document["modules"]
    assert list(FILE.entries({}, "modules", [])) == []
    place, _ = next(FILE.entries(document, "modules"))
    assert (place.source, place.error) == ("s.json", ScanFileError)


def test_no_number_that_json_lacks_hides_in_a_value_and_the_way_to_it_is_named():
    FILE.refuse_non_finite("p", {"a": [1, {"b": 2.5}], "c": "NaN", "d": None})
    with pytest.raises(ScanFileError, match=r"field 'p\.a\.1\.b': expected finite numbers, found NaN"):
        FILE.refuse_non_finite("p", {"a": [1, {"b": math.nan}]})
    with pytest.raises(ScanFileError, match=r"field 'p\.0': expected finite numbers, found -Infinity"):
        FILE.refuse_non_finite("p", [-math.inf])
    with pytest.raises(ScanFileError, match="field 'p': expected finite numbers, found Infinity"):
        FILE.refuse_non_finite("p", math.inf)


def test_values_nest_fifty_levels_and_no_more():
    def nested(levels: int) -> list:
        value: list = []
        for _ in range(levels):
            value = [value]
        return value

    FILE.refuse_non_finite("p", nested(50))
    with pytest.raises(ScanFileError) as caught:
        FILE.refuse_non_finite("p", nested(51))
    name = ("p" + ".0" * 51)[:40]
    assert str(caught.value) == f"s.json: field '{name}': expected at most 50 levels, found more"
