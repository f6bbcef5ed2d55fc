"""Does a value of the configuration fit the field of the library's dataclass that it is meant for?"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from spectrum_fast.errors import UsageError


def field_types(cls: type) -> dict[str, Any]:
    """Name -> type of every field that a caller can give."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], source: str) -> None:
    """Check each value against its field's type.

    Raises:
        UsageError: one does not fit; the message names the key and what it expects.
    """
    for key, value in values.items():
        if not _fits(value, hints[key]):
            raise UsageError(f"{source}: {key}: expected {_describe(hints[key])}, found {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin is list:
        return isinstance(value, list) and (not arguments or all(_fits(item, arguments[0]) for item in value))
    if hint is list or hint is dict or origin is dict:
        return isinstance(value, origin or hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    return True  # a class of theirs: its own constructor checks


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(argument) for argument in arguments))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return names.get(
        hint, "a list" if list in (hint, origin) else "keys and values" if dict in (hint, origin) else str(hint)
    )
