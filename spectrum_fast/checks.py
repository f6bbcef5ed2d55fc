"""What a value must be: a test and the words for it, shared by options and by the fields of files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ONLY_WHERE_KNOWN = {"written": "only where known"}
"""Metadata of a field that is left out of its entry in a file where it is None."""
_TOO_MANY = 2**63
"""Of anything: no file has so many bytes, and what computes with a count takes 64 bits."""


@dataclass(frozen=True)
class Check:
    """A test of a value and its description for messages."""

    test: Callable[[Any], bool]
    expected: str

    def or_null(self) -> Check:
        """The same, or null."""
        return Check(lambda value: value is None or self.test(value), f"{self.expected} or null")


def is_number(value: Any) -> bool:
    """Whether it is a finite number and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_count(value: Any) -> bool:
    """Whether it is a whole number >= 0 of at most 63 bits, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_MANY


def _is_list_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()  # a control character would act somewhere


TEXT = Check(lambda value: isinstance(value, str), "a text")
NAME = Check(_is_name, "a name")
NAMES = Check(_is_list_of(_is_name), "a list of names")
FLAG = Check(lambda value: isinstance(value, bool), "true or false")
REAL = Check(lambda value: is_number(value) and value >= 0, "a finite number >= 0")
COUNT = Check(is_count, "a whole number >= 0 and < 2^63")
POSITIVE = Check(lambda value: is_count(value) and value > 0, "a whole number of 1 or more")
COUNTS = Check(_is_list_of(is_count), "a list of whole numbers >= 0 and < 2^63")
OBJECT = Check(lambda value: isinstance(value, dict), "an object")
LIST = Check(lambda value: isinstance(value, list), "a list")
PERCENT = Check(lambda value: is_number(value) and 0 < value <= 100, "a number in (0, 100]")
