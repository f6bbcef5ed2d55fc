"""JSON read with suspicion: duplicate keys, bottomless nesting and broken text are errors that say where.

The constants ``NaN`` and ``Infinity``, which JSON does not have but published files do, come through as floats; each
reader decides about them where it knows the field.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from spectrum_fast.errors import SpectrumFastError


class _DuplicateKeyError(ValueError):
    """An object names a key twice; carries the key."""


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return result


def format_json(document: Mapping[str, Any]) -> str:
    """Strict JSON, a key a line, and of a list of objects an object a line.

    Raises:
        TypeError, ValueError, RecursionError: it holds what JSON has not.
    """

    def spell(value: Any) -> str:
        if not isinstance(value, list) or not value or not isinstance(value[0], dict):
            return json.dumps(value, allow_nan=False)
        return "[\n" + ",\n".join(f" {json.dumps(entry, allow_nan=False)}" for entry in value) + "\n]"

    return "{\n" + ",\n".join(f"{json.dumps(key)}: {spell(value)}" for key, value in document.items()) + "\n}\n"


def parse_json(text: str, source: str, error: type[SpectrumFastError]) -> Any:
    """Parse ``text``.

    Args:
        text: the JSON document.
        source: what to call it in messages, usually the path.
        error: class to raise.

    Raises:
        SpectrumFastError: of class ``error``: no text, broken JSON, a key twice in one object, or nesting too deep.
    """
    if not text.strip():
        raise error(
            f"{source}: expected JSON, found an empty file ({len(text)} characters, all blank); "
            "the scan that should have written it did not finish: get or make it again"
        )
    try:
        return json.loads(text, object_pairs_hook=_unique_pairs)
    except _DuplicateKeyError as cause:
        raise error(f"{source}: expected each key once in an object, found {cause.args[0]!r} twice") from None
    except json.JSONDecodeError as cause:
        raise error(
            f"{source}: expected JSON, found at line {cause.lineno}, column {cause.colno}: {cause.msg}"
        ) from cause
    except RecursionError:
        raise error(f"{source}: expected plain JSON, found nesting too deep to read") from None
    except ValueError as cause:  # an integer of thousands of digits
        raise error(f"{source}: expected JSON, found an unreadable number: {cause}") from cause
