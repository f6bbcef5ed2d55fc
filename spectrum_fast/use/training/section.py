"""The section ``spectrum:`` of a training configuration: the only part of it that is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectrum_fast.choose.selection.patterns import near_names_text
from spectrum_fast.choose.selection.ranking import GROUPINGS, ROUNDINGS, check_percent
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.use.training.field_types import check_types, field_types
from spectrum_fast.use.training.methods import Method, find_method

PARTIAL = ("aggregate", "whole", "mask")
"""Experts that the model fuses at run time: they compete as one parameter by their aggregated score, or each by itself,
and then the whole parameter is trained where any of them is selected, or only the selected ones inside it."""

SHARDS = ("none", "zero2", "zero3", "fsdp2")
"""How a run over several processes divides the model: not at all (DDP), by DeepSpeed ZeRO-2 or ZeRO-3, or by FSDP2."""

OFFLOADS = ("none", "optimizer", "all")
"""What is kept in the memory of the host: nothing, the optimizer's state, or the parameters too (ZeRO-3 and FSDP2)."""


@dataclass(frozen=True, kw_only=True)
class SpectrumSection:
    """What to train and how to divide it.

    Attributes:
        method: one of :data:`spectrum_fast.use.training.methods.METHODS`.
        selection: a selection file in any format that is read; instead of a scan.
        scan: a scan file; without it and without ``selection`` the model is scanned first, and the scan is kept as
            ``scan.json`` in the output folder.
        top_percent: share of each group; 25 unless a selection file is given.
        criterion: rule of the scan; a scan file made by another one is refused.
        grouping: what competes with what (:data:`spectrum_fast.choose.selection.ranking.GROUPINGS`).
        rounding: how many of a group are taken (:data:`spectrum_fast.choose.selection.ranking.ROUNDINGS`).
        include: patterns of modules that compete.
        exclude: patterns of modules that are never trained.
        always: ``default`` (embeddings and head), ``none``, or patterns of modules that are trained whatever their
            score.
        allow_incomplete: select although some tensors of the scan have no score.
        seed: of the method ``random``.
        partial: one of :data:`PARTIAL`.
        shard: one of :data:`SHARDS`.
        offload: one of :data:`OFFLOADS`.
    """

    method: str
    selection: str | None = None
    scan: str | None = None
    top_percent: float | None = None
    criterion: str | None = None
    grouping: str = "type"
    rounding: str = "reference"
    include: list[str] | None = None
    exclude: list[str] | None = None
    always: str | list[str] = "default"
    allow_incomplete: bool = False
    seed: int = 0
    partial: str = "aggregate"
    shard: str = "none"
    offload: str = "none"

    @property
    def chosen(self) -> Method:
        """The method itself."""
        return find_method(self.method)


_ABOUT_SELECTING = (
    "selection",
    "scan",
    "top_percent",
    "criterion",
    "grouping",
    "rounding",
    "include",
    "exclude",
    "always",
    "allow_incomplete",
    "partial",
)


def read_section(values: Mapping[str, Any], source: str) -> SpectrumSection:
    """Read and check the section.

    Args:
        values: its keys and values.
        source: the file, for messages.

    Raises:
        UsageError: a key is unknown, a value is not what it should be, or two contradict each other.
    """
    hints = field_types(SpectrumSection)
    for key in values:
        if key not in hints:
            raise UsageError(f"{source}: spectrum.{key}: no such key{near_names_text(key, hints)}")
    if "method" not in values:
        raise UsageError(f"{source}: spectrum.method: expected what to train, found nothing; for example: spectrum")
    check_types(values, hints, f"{source}: spectrum")
    section = SpectrumSection(**values)
    try:
        _check(section, {key for key, value in values.items() if value is not None})
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    return section


def _check(section: SpectrumSection, given: set[str]) -> None:
    method = find_method(section.method)
    for key, choices in (
        ("grouping", GROUPINGS),
        ("rounding", ROUNDINGS),
        ("partial", PARTIAL),
        ("shard", SHARDS),
        ("offload", OFFLOADS),
    ):
        if getattr(section, key) not in choices:
            raise UsageError(f"spectrum.{key}: expected one of {', '.join(choices)}, found {getattr(section, key)!r}")
    if section.criterion is not None:
        find_criterion(section.criterion)
    if section.top_percent is not None:
        check_percent(section.top_percent)
    if section.selection is not None:
        clash = sorted(given & (set(_ABOUT_SELECTING) - {"selection", "partial"}))
        if clash:
            raise UsageError(
                f"spectrum.selection: a selection is finished, so {clash[0]} has no effect; give one or the other"
            )
        if method.order in ("bottom", "random"):
            raise UsageError(
                f"spectrum.method {method.name}: needs to know all modules of each group, which a selection does not "
                "hold; give the scan and top_percent instead"
            )
    if section.offload != "none" and section.shard == "none":
        raise UsageError("spectrum.offload: needs spectrum.shard zero2, zero3 or fsdp2")
    if section.offload == "all" and section.shard == "zero2":
        raise UsageError("spectrum.offload all: ZeRO-2 keeps every parameter on the device; use shard zero3")
