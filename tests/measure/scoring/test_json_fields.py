"""The place of a wrong value in messages, and what each check lets through."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace

import pytest

from spectrum_fast.checks import COUNT, COUNTS, FLAG, NAME, NAMES, REAL, TEXT
from spectrum_fast.errors import ScanFileError, TensorError
from spectrum_fast.measure.scoring.json_fields import ABSENT, NEVER_WRITTEN, ONLY_WHERE_KNOWN, Name, Place, entry_of

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


@dataclass(frozen=True, kw_only=True)
class Part:
    """An object inside an entry, which refuses a length without a unit."""

    length: float
    unit: str = ""

    def __post_init__(self) -> None:
        if self.length and not self.unit:
            raise TensorError("part: expected a unit, found none")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """An entry with a field of every type."""

    name: Name
    flag: bool
    count: int | None
    sizes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    text: str = "default"
    part: Part | None = None
    rare: int | None = field(default=None, metadata=ONLY_WHERE_KNOWN)
    private: str = field(default="", metadata=NEVER_WRITTEN)


WHOLE = Whole(name="a", flag=True, count=None, sizes=(1, 2), names=("b",), part=Part(length=2.5, unit="m"), private="x")
ENTRY_OF_WHOLE = {
    "name": "a",
    "flag": True,
    "count": None,
    "sizes": [1, 2],
    "names": ["b"],
    "text": "default",
    "part": {"length": 2.5, "unit": "m"},
}


def test_a_dataclass_is_written_and_read_by_its_declaration():
    assert json.loads(json.dumps(entry_of(WHOLE))) == ENTRY_OF_WHOLE
    assert list(entry_of(WHOLE)) == list(ENTRY_OF_WHOLE)
    assert entry_of(replace(WHOLE, rare=3))["rare"] == 3
    assert FILE.read_record(Whole, {**ENTRY_OF_WHOLE, "other": 1, "private": "y"}) == replace(WHOLE, private="")
    least = FILE.read_record(Whole, {"name": "a", "flag": False, "count": 3})
    assert least == Whole(name="a", flag=False, count=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "field 'name': expected a name, found \"\""),
        ({"flag": None}, "field 'flag': expected true or false, found null"),
        ({"count": ...}, "field 'count': expected a whole number >= 0 and < 2^63 or null, found nothing"),
        ({"count": 1.0}, "field 'count': expected a whole number >= 0 and < 2^63 or null, found 1.0"),
        ({"sizes": None}, "field 'sizes': expected a list of whole numbers >= 0 and < 2^63, found null"),
        ({"names": ["a", ""]}, 'field \'names\': expected a list of names, found ["a", ""]'),
        ({"text": None}, "field 'text': expected a text, found null"),
        ({"part": []}, "field 'part': expected an object or null, found []"),
        (
            {"part": {"unit": "m"}},
            "modules[3] (lm_head): part: field 'length': expected a finite number >= 0, found nothing",
        ),
        ({"part": {"length": 1.0}}, "modules[3] (lm_head): part: expected a unit, found none"),
    ],
)
def test_what_an_entry_lacks_or_has_wrong_is_named(change, message):
    values = {key: value for key, value in {**ENTRY_OF_WHOLE, **change}.items() if value is not ...}
    with pytest.raises(ScanFileError) as caught:
        ENTRY.read_record(Whole, values)
    assert str(caught.value).endswith(message)
    assert str(caught.value).startswith("s.json: modules[3] (lm_head): ")


def test_fields_with_a_default_can_be_asked_for():
    least = {"name": "a", "flag": False, "count": 3}
    assert FILE.read_fields(Whole, least) == least
    with pytest.raises(ScanFileError, match="field 'text': expected a text, found nothing"):
        FILE.read_fields(Whole, least, required=("text",))


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
