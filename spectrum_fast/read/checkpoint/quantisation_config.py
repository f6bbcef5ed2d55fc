"""What ``config.json`` says about quantisation, as far as decoding depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class QuantisationConfig:
    """The quantisation section of a configuration; every field may be unknown.

    Attributes:
        method: ``quant_method``: ``fp8``, ``compressed-tensors``, ``awq``, ``gptq``; empty if unknown.
        format: ``format`` of compressed-tensors, GPTQ's ``checkpoint_format`` or AWQ's ``version``; empty if unknown.
        blocks: block shapes that occur (rows, columns).
        bits: widths of quantised weights that occur.
        group_size: AWQ's group size, or None.
    """

    method: str = ""
    format: str = ""
    blocks: tuple[tuple[int, int], ...] = ()
    bits: tuple[int, ...] = ()
    group_size: int | None = None


def read_quantisation_config(config: Mapping[str, Any] | None) -> QuantisationConfig:
    """Read the section from a model's configuration or its text part; what is malformed counts as unknown.

    >>> read_quantisation_config({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    QuantisationConfig(method='fp8', format='', blocks=((128, 128),), bits=(), group_size=None)
    """
    section = _section(config)
    blocks = [section.get("weight_block_size")]
    bits = [section.get("bits")]
    groups = section.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            blocks.append(weights.get("block_structure"))
            bits.append(weights.get("num_bits"))
    return QuantisationConfig(
        method=_text(section.get("quant_method")),
        format=_text(section.get("format", section.get("checkpoint_format", section.get("version")))),
        blocks=tuple(sorted({block for block in map(_block, blocks) if block is not None})),
        bits=tuple(sorted({width for width in bits if type(width) is int})),
        group_size=section["group_size"] if type(section.get("group_size")) is int else None,
    )


def _section(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    text = (config or {}).get("text_config")
    for part in (config or {}, text if isinstance(text, Mapping) else {}):
        for key in ("quantization_config", "compression_config"):
            if isinstance(part.get(key), Mapping):
                return part[key]
    return {}


def _text(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _block(value: object) -> tuple[int, int] | None:
    if isinstance(value, str) and "x" in value:  # compressed-tensors also writes "128x128"
        value = [int(part) if part.isdigit() and len(part) <= 9 else 0 for part in value.split("x")]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    rows, columns = value
    if type(rows) is not int or type(columns) is not int or rows < 1 or columns < 1:
        return None
    return rows, columns
