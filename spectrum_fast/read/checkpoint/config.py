"""``config.json`` beside a checkpoint: read as plain data, never acted upon."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage import Address, read_small_file

MAX_CONFIG_BYTES = 1 << 20
"""Largest config.json that is read; real ones stay under 100 kB."""


def read_config(path: Address) -> dict[str, Any]:
    """Read a model's configuration.

    ``Infinity`` is accepted: transformers writes it for some state-space models.

    Raises:
        CheckpointError: too large, not UTF-8, not JSON, or not an object.
    """
    raw = read_small_file(path, MAX_CONFIG_BYTES)
    try:
        config = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON: {error}; download or save it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object, found {type(config).__name__}; download or save it again"
        )
    return config


def finite_only(value: Any) -> Any:
    """The same plain values with null for infinities and NaN, which a strict JSON file cannot hold.

    >>> finite_only({"limits": [0.0, float("inf")]})
    {'limits': [0.0, None]}
    """
    if isinstance(value, dict):
        return {key: finite_only(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite_only(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_text_part(config: object) -> list[Mapping[str, Any]]:
    """The configuration and that of its text part, as far as they are there."""
    parts = (config, config.get("text_config") if isinstance(config, Mapping) else None)
    return [part for part in parts if isinstance(part, Mapping)]


def ties_embeddings(config: Mapping[str, Any] | None) -> bool | None:
    """What the configuration, or its text part, says by ``tie_word_embeddings``: true before false, None if neither.

    >>> ties_embeddings({"text_config": {"tie_word_embeddings": True}}), ties_embeddings({})
    (True, None)
    """
    said = [part.get("tie_word_embeddings") for part in with_text_part(config)]
    return next((value for value in (True, False) if any(one is value for one in said)), None)
