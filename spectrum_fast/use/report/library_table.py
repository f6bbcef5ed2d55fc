"""The scans of a library as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType

from spectrum_fast.choose.library import FoundModule, LibraryEntry
from spectrum_fast.use.report.layout import add_row, plain_table

if TYPE_CHECKING:
    from spectrum_fast.scanning.fleet import FleetOutcome


def library_table(entries: Sequence[LibraryEntry]) -> RenderableType:
    """One line a scan; the slug breaks over lines rather than lose an end."""
    table = plain_table("model", "criterion", "modules", "types", "holds", words=("criterion", "holds"))
    for entry in entries:
        whole = entry.files[0].rpartition("/")[2].startswith("scan_")
        add_row(
            table,
            entry.slug,
            entry.criterion,
            "broken" if entry.problem else _count(entry.modules),
            _count(entry.types),
            "whole scan" if whole else "scores",
        )
    return table


def found_table(found: Iterable[FoundModule]) -> RenderableType:
    """Modules of many models, one a line."""
    table = plain_table("model", "criterion", "module", "score", words=("criterion", "module"))
    for module in found:
        score = "noise-free" if math.isinf(module.score) else f"{module.score:.4g}"
        add_row(table, module.model, module.criterion, module.name, score)
    return table


def failure_table(failures: Iterable[FleetOutcome]) -> RenderableType:
    """Checkpoints without a scan: name, attempts, and why."""
    table = plain_table("model", "tried", "why", words=("why",))
    for outcome in failures:
        add_row(table, outcome.model.name, f"{outcome.attempts}", outcome.detail)
    return table


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value}"
