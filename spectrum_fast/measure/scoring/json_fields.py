"""JSON entries and the dataclasses that declare their fields, and errors that say where in a file something is wrong.

A field's type says how it is checked: ``float`` is a finite number >= 0, ``int`` a whole one, ``tuple[int, ...]`` a
list of such, :data:`Name` a text that is not empty, a dataclass an object of its own; with ``None`` it may be null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from spectrum_fast.checks import COUNT, COUNTS, FLAG, LIST, NAME, NAMES, OBJECT, ONLY_WHERE_KNOWN, REAL, TEXT, Check
from spectrum_fast.errors import SpectrumFastError, TensorError

ABSENT: Any = object()
"""Stands for a field that is not there, which null is not."""

Name: TypeAlias = Annotated[str, NAME]
"""A text that is not empty and holds no control character."""

NEVER_WRITTEN = {"written": "never"}
"""Metadata of a field that is no part of its entry."""

_MAX_DEPTH = 50
_CHECKS: dict[Any, Check] = {
    str: TEXT,
    Name: NAME,
    bool: FLAG,
    int: COUNT,
    float: REAL,
    tuple[int, ...]: COUNTS,
    tuple[str, ...]: NAMES,
}
_Record = TypeVar("_Record")


def only_version(version: int, otherwise: str = "") -> Check:
    """What the field ``schema`` of a file must be; ``otherwise`` is what to do with one of another version."""
    known = f"{version}, the only version that this version of spectrum_fast reads"
    return Check(lambda value: value == version and not isinstance(value, bool), known + otherwise)


def type_of(hint: Any) -> tuple[Any, bool]:
    """The type of a field without None, or what stands for it, and whether that may be in it."""
    if get_origin(hint) is Annotated or not (arguments := get_args(hint)) or Ellipsis in arguments:
        return hint, False
    kinds = [kind for kind in arguments if kind is not type(None) and not isinstance(kind, TypeVar)]
    return kinds[0], len(kinds) < len(arguments)


@cache
def _declared(record: type) -> dict[str, tuple[Field[Any], Check, type | None]]:
    """The fields of an entry: the check of each, and its dataclass if it is an object of its own."""
    hints = get_type_hints(record, include_extras=True)
    found: dict[str, tuple[Field[Any], Check, type | None]] = {}
    for field in fields(record):
        if field.metadata == NEVER_WRITTEN:
            continue
        kind, nullable = type_of(hints[field.name])
        inner = kind if isinstance(kind, type) and is_dataclass(kind) else None
        check = OBJECT if inner else _CHECKS.get(kind, LIST)
        found[field.name] = field, check.or_null() if nullable else check, inner
    return found


def entry_of(record: Any) -> dict[str, Any]:
    """The entry for a dataclass, its fields in their order; :meth:`Place.read_record` gives the same record back."""
    entry: dict[str, Any] = {}
    for name, (field, _, inner) in _declared(type(record)).items():
        value = getattr(record, name)
        if value is not None or field.metadata != ONLY_WHERE_KNOWN:
            entry[name] = entry_of(value) if inner is not None and value is not None else value
    return entry


@dataclass(frozen=True)
class Place:
    """Where a value stands.

    Attributes:
        source: the file.
        error: class of the errors raised here.
        entry: the entry inside it, e.g. ``modules[3] (lm_head)``; empty for the document itself.
    """

    source: str
    error: type[SpectrumFastError]
    entry: str = ""

    def wrong(self, field: str, expected: str, found: Any) -> SpectrumFastError:
        """The error that says that ``field`` should have held ``expected``."""
        entry = f"{self.entry}: " if self.entry else ""
        shown = "nothing" if found is ABSENT else json.dumps(found)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return self.error(f"{self.source}: {entry}field {field!r}: expected {expected}, found {shown}")

    def read(self, values: Mapping[str, Any], field: str, check: Check, default: Any = ABSENT) -> Any:
        """The value of ``field``.

        Raises:
            SpectrumFastError: of class ``error``: it is missing and has no default, or fails its check.
        """
        value = values.get(field, ABSENT)
        if value is ABSENT and default is not ABSENT:
            return default
        if value is ABSENT or not check.test(value):
            raise self.wrong(field, check.expected, value)
        return value

    def read_record(self, record: type[_Record], values: Mapping[str, Any]) -> _Record:
        """An entry as the dataclass that declares its fields.

        Each field is checked by its type. One with a default may be absent, for files from before it was added; keys
        that the class does not have are dropped.

        Raises:
            SpectrumFastError: of class ``error``: a field is missing or not what it should be, or the class refuses the
                values together.
        """
        try:
            return record(**self.read_fields(record, values))
        except TensorError as cause:
            raise self.error(f"{self.source}: {self.entry}: {cause}") from cause

    def read_fields(self, record: type, values: Mapping[str, Any], required: Collection[str] = ()) -> dict[str, Any]:
        """The same as a mapping; ``required`` fields must be there though they have a default."""
        known: dict[str, Any] = {}
        for name, (field, check, inner) in _declared(record).items():
            if name not in values and field.default is not MISSING and name not in required:
                continue
            value = self.read(values, name, check)
            if inner is not None and value is not None:
                place = Place(self.source, self.error, f"{self.entry}: {name}")
                value = inner(**place.read_fields(inner, value))
            known[name] = tuple(value) if isinstance(value, list) else value
        return known

    def entries(
        self, document: Mapping[str, Any], field: str, default: Any = ABSENT
    ) -> Iterator[tuple[Place, dict[str, Any]]]:
        """The objects in the list ``field``, each with its own place."""
        for index, entry in enumerate(self.read(document, field, LIST, default)):
            if not isinstance(entry, dict):
                raise self.wrong(f"{field}[{index}]", OBJECT.expected, entry)
            name = entry.get("name")
            label = f"{field}[{index}]" + (f" ({name})" if isinstance(name, str) else "")
            yield Place(self.source, self.error, label), entry

    def records(self, record: type[_Record], document: Mapping[str, Any], field: str) -> tuple[_Record, ...]:
        """The objects in the list ``field`` as dataclasses."""
        return tuple(place.read_record(record, values) for place, values in self.entries(document, field))

    def refuse_non_finite(self, field: str, value: Any, depth: int = 0) -> None:
        """Raise if NaN or an infinity hides anywhere in ``value``, or if it is nested beyond any use."""
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(field, "finite numbers", value)
        if depth > _MAX_DEPTH:
            raise self.error(f"{self.source}: field {field[:40]!r}: expected at most {_MAX_DEPTH} levels, found more")
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            self.refuse_non_finite(f"{field}.{key}", child, depth + 1)
