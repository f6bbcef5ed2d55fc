"""A YAML file read strictly, and ``--set a.b=c`` on top of it.

PyYAML by itself keeps the last of two equal keys and reads ``1e-5`` as a text; here the first is an error and the
second a number, as YAML 1.2 has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from spectrum_fast.errors import UsageError
from spectrum_fast.files import read_text


class _StrictLoader(yaml.SafeLoader):
    """Plain data only; equal keys refused."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"expected a text as key, found {key!r}", key_node.start_mark
            )
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document of plain data.

    Raises:
        UsageError: it is no YAML, holds something that is no plain data, or a key stands twice.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as cause:
        raise UsageError(f"{source}: expected YAML of plain data: {' '.join(str(cause).split())}") from cause


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, and set some of its values.

    Args:
        path: the file.
        overrides: ``key=value`` or ``section.key=value``; the value is YAML (``1e-5``, ``[a, b]``, ``null``).

    Raises:
        UsageError: the file cannot be read, holds no mapping, or an override is malformed.
    """
    document = parse_yaml(read_text(path, error=UsageError), str(path))
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise UsageError(f"{path}: expected keys and values, found {found}")
    for override in overrides:
        _set(document, override)
    return document


def _set(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {override}: expected key=value or section.key=value")
    *sections, last = parts
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise UsageError(f"--set {override}: {section!r} holds a value, not keys")
    document[last] = parse_yaml(text, f"--set {override}")


def require_mapping(value: Any, name: str, source: str) -> Mapping[str, Any]:
    """``value`` if it is a mapping; an absent section is an empty one.

    Raises:
        UsageError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{source}: {name}: expected keys and values, found {value!r}")
    return value
