"""A PEFT adapter's folder: the names of its files, and how to know it."""

from __future__ import annotations

from collections.abc import Collection

CONFIG = "adapter_config.json"
"""Says what the matrices beside it change."""
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Before every name that PEFT saves."""


def is_adapter(names: Collection[str]) -> bool:
    """Whether a folder of these files holds an adapter and no model."""
    return CONFIG in names and not any(name.startswith("model") and name.endswith(".safetensors") for name in names)
