"""What ``config.json`` (of an adapter, ``adapter_config.json``) says, as far as decoding depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spectrum_fast.read.checkpoint.config import with_text_part


@dataclass(frozen=True)
class Scheme:
    """How some of the weights are said to be stored; None or empty where nothing is said.

    Attributes:
        bits: width of a code.
        kind: ``int`` or ``float``.
        strategy: what shares a scale: ``tensor``, ``channel``, ``group`` or ``block``.
        group_size: inputs that share a scale; -1 for all of a row.
        block: rows and columns that share a scale.
        symmetric: whether there are no zero points.
    """

    bits: int | None = None
    kind: str = ""
    strategy: str = ""
    group_size: int | None = None
    block: tuple[int, int] | None = None
    symmetric: bool | None = None

    def allows(self, bits: int, kind: str) -> bool:
        """Whether it may speak of codes of this width and kind; one that contradicts itself speaks of none."""
        grouped = self.group_size is not None and self.group_size > 0
        if (self.strategy in ("tensor", "channel", "block") and grouped) or (self.strategy == "group" and not grouped):
            return False
        if self.strategy == "block" and self.block is None:
            return False
        return self.bits in (None, bits) and self.kind in ("", kind)

    def groups(self, inputs: int) -> int | None:
        """Groups of so many inputs; None where it does not say."""
        if self.strategy in ("tensor", "channel") or self.group_size == -1:
            return 1
        size = self.group_size
        return -(-inputs // size) if size is not None and size > 0 else None


def unnamed(schemes: Sequence[Scheme], bits: int, inputs: int, groups: int, symmetric: bool | None = None) -> str:
    """Why none of the schemes, where there are any, speaks of integers in so many groups of inputs; empty if one does.

    ``symmetric`` says that there are no zero points, None that they tell nothing.
    """
    for scheme in schemes:
        fits = scheme.allows(bits, "int") and scheme.groups(inputs) in (None, groups)
        if fits and (symmetric is None or scheme.symmetric in (None, symmetric)):
            return ""
    if not schemes:
        return ""
    zero = "" if symmetric is None else f", {'no' if symmetric else 'with'} zero points"
    said = (
        ", ".join(f"{key} {value}" for key, value in asdict(scheme).items() if value not in (None, ""))
        for scheme in schemes
    )
    found = f"found {bits} bits in {groups} groups of {inputs} inputs{zero}"
    return f"{found}, which config.json does not name: expected {' or '.join(said)}"


@dataclass(frozen=True)
class QuantisationConfig:
    """The quantisation section of a configuration; every field may be unknown.

    Attributes:
        method: ``quant_method``: ``fp8``, ``compressed-tensors``, ``awq``, ``gptq``; empty if unknown.
        format: ``format`` of compressed-tensors, GPTQ's ``checkpoint_format`` or AWQ's ``version``; empty if unknown.
        schemes: what is said of the weights; several where it differs among them, none where nothing is said.
        adapter: the whole configuration, if it is an adapter's; else empty.
    """

    method: str = ""
    format: str = ""
    schemes: tuple[Scheme, ...] = ()
    adapter: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bits(self) -> list[int]:
        """Widths that occur."""
        return sorted({scheme.bits for scheme in self.schemes if scheme.bits is not None})


def read_quantisation_config(config: Mapping[str, Any] | None) -> QuantisationConfig:
    """Read the section from a model's configuration or its text part; what is malformed counts as unknown.

    >>> read_quantisation_config({"quantization_config": {"quant_method": "gptq", "bits": 4}}).schemes
    (Scheme(bits=4, kind='', strategy='', group_size=None, block=None, symmetric=None),)
    """
    section = _section(config)
    groups = section.get("config_groups")
    weights = [_part(group, "weights") for group in groups.values()] if isinstance(groups, Mapping) else []
    schemes = [_scheme(said, "num_bits", "block_structure") for said in weights if said is not None]
    whole = _scheme(section, "bits", "weight_block_size")
    if whole != Scheme() and not section.get("dynamic"):  # GPTQModel: other widths for modules that a pattern names
        schemes.append(whole)
    return QuantisationConfig(
        method=_text(section.get("quant_method")),
        format=_text(section.get("format", section.get("checkpoint_format", section.get("version")))),
        schemes=tuple(dict.fromkeys(schemes)),
        adapter=config if config and "peft_type" in config else {},
    )


def _scheme(said: Mapping[str, Any], bits: str, block: str) -> Scheme:
    symmetric = said.get("symmetric")
    return Scheme(
        bits=_integer(said.get(bits)),
        kind=_text(said.get("type")),
        strategy=_text(said.get("strategy")),
        group_size=_integer(said.get("group_size")),
        block=_block(said.get(block)),
        symmetric=symmetric if isinstance(symmetric, bool) else None,
    )


def _section(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    for part in with_text_part(config):
        for key in ("quantization_config", "compression_config"):
            if (section := _part(part, key)) is not None:
                return section
    return {}


def _part(value: object, key: str) -> Mapping[str, Any] | None:
    part = value.get(key) if isinstance(value, Mapping) else None
    return part if isinstance(part, Mapping) else None


def _text(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _integer(value: object) -> int | None:
    return value if type(value) is int else None


def _block(value: object) -> tuple[int, int] | None:
    if isinstance(value, str) and "x" in value:  # compressed-tensors also writes "128x128"
        value = [
            int(part) if part.isdecimal() and part.isascii() and len(part) <= 9 else 0 for part in value.split("x")
        ]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    rows, columns = value
    if type(rows) is not int or type(columns) is not int or not 0 < min(rows, columns) <= max(rows, columns) < 2**31:
        return None
    return rows, columns
