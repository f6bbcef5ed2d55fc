"""The scan as a user holds it: the record, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from spectrum_fast.choose.selection.compare import ScanComparison, compare_scans
from spectrum_fast.choose.selection.records import Selection
from spectrum_fast.choose.selection.select import select_modules
from spectrum_fast.measure.scoring.records import ScanRecord
from spectrum_fast.measure.scoring.scan_file import read_scan, write_scan


@dataclass(frozen=True)
class Scan(ScanRecord):
    """A finished or loaded scan; :class:`~spectrum_fast.measure.scoring.records.ScanRecord` describes the fields.

    Attributes:
        run: of a scan that was just made, what passed by in making it: date, times, processes, modules taken over from
            a journal. It is no part of the scan: it is not in the file and two scans are equal whatever it holds.
    """

    run: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_record(cls, record: ScanRecord) -> Scan:
        """The same data with these methods."""
        return cls(**{entry.name: getattr(record, entry.name) for entry in fields(ScanRecord)})

    def select(
        self,
        top_percent: float = 25,
        *,
        grouping: str = "type",
        rounding: str = "reference",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        always: str | Sequence[str] = "default",
        allow_incomplete: bool = False,
        fused: str = "parameter",
        order: str = "top",
        seed: int = 0,
    ) -> Selection:
        """Take the best ``top_percent`` of each group; see ``selection.select.select_modules``.

        Raises:
            SelectionError: the scan is incomplete, holds nothing to select from, or a pattern matches nothing.
            UsageError: an argument is out of range.
        """
        return select_modules(
            self,
            top_percent,
            grouping=grouping,
            rounding=rounding,
            include=include,
            exclude=exclude,
            always=always,
            allow_incomplete=allow_incomplete,
            fused=fused,
            order=order,
            seed=seed,
        )

    def compare(self, other: ScanRecord, top_percent: float = 25) -> ScanComparison:
        """Compare with another scan; see :func:`spectrum_fast.choose.selection.compare.compare_scans`."""
        return compare_scans(self, other, top_percent)

    def save(self, path: str | Path) -> None:
        """Write the scan file, whole or not at all; see :mod:`spectrum_fast.measure.scoring.scan_file`.

        Raises:
            ScanFileError: the target cannot be written; an old file is unchanged.
        """
        write_scan(self, path)


def load_scan(path: str | Path) -> Scan:
    """Read a scan file of this package, or a result published by the reference implementation in either layout.

    Raises:
        ScanFileError: the file is missing, empty, of an unknown schema, or an entry is not what it should be.
    """
    return Scan.from_record(read_scan(path))
