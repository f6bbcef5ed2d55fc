"""Hand-written checks of JSON entries: which field of which entry of which file, what was expected, what was found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spectrum_fast.checks import LIST, OBJECT, Check
from spectrum_fast.errors import SpectrumFastError

ABSENT: Any = object()
"""Stands for a field that is not there, which null is not."""

_MAX_DEPTH = 50


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

    def read_all(
        self, values: Mapping[str, Any], checks: Mapping[str, Check], may_be_absent: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """The known fields of an entry, each checked; unknown ones are dropped, a list becomes a tuple."""
        result = {}
        for field, check in checks.items():
            value = self.read(values, field, check, None if field in may_be_absent else ABSENT)
            if field in values:
                result[field] = tuple(value) if isinstance(value, list) else value
        return result

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

    def refuse_non_finite(self, field: str, value: Any, depth: int = 0) -> None:
        """Raise if NaN or an infinity hides anywhere in ``value``, or if it is nested beyond any use."""
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(field, "finite numbers", value)
        if depth > _MAX_DEPTH:
            raise self.error(f"{self.source}: field {field[:40]!r}: expected at most {_MAX_DEPTH} levels, found more")
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            self.refuse_non_finite(f"{field}.{key}", child, depth + 1)
