"""The scan as a user holds it: the record, and what can be done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spectrum_fast.choose.selection.compare import ScanComparison, compare_scans
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.presented_scan import PresentedScan
from spectrum_fast.choose.selection.records import Selection
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.errors import ScanFileError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.measure.scoring.records import ScanRecord
from spectrum_fast.measure.scoring.scan_file import format_scan, parse_scan
from spectrum_fast.measure.scoring.stored_spectra import with_spectra, write_spectra
from spectrum_fast.options import takes_options


@dataclass(frozen=True, repr=False)
class Scan(PresentedScan, ScanRecord):
    """A finished or loaded scan: the fields of :class:`~spectrum_fast.measure.scoring.records.ScanRecord`, and methods.

    The rooms left of the selection know the fields alone, because what the methods call lies right of them.
    """

    @takes_options(SelectOptions)
    def select(self, options: SelectOptions) -> Selection:
        """Take the best share of each group; see :func:`spectrum_fast.choose.selection.select.select_modules`.

        Args:
            options: keywords, each of :class:`spectrum_fast.choose.selection.options.SelectOptions`.

        Raises:
            SelectionError: the scan is incomplete, holds nothing to select from, or a pattern matches nothing.
            UsageError: an argument is out of range.
        """
        return select_with(self, options)

    def compare(self, other: ScanRecord, top_percent: float = 25) -> ScanComparison:
        """Compare with another scan; see :func:`spectrum_fast.choose.selection.compare.compare_scans`."""
        return compare_scans(self, other, top_percent)

    def save(self, path: str | Path) -> None:
        """Write the scan file, whole or not at all, and all singular values beside it where they are kept.

        See :mod:`spectrum_fast.measure.scoring.scan_file` and ``stored_spectra``.

        Raises:
            ScanFileError: the target cannot be written; an old file is unchanged.
        """
        text = format_scan(self)
        write_spectra(self, text, path)
        write_text_atomic(path, text, error=ScanFileError)


def load_scan(path: str | Path) -> Scan:
    """Read a scan file of this package, or a result published by the reference implementation in either layout.

    Raises:
        ScanFileError: the file is missing, empty, of an unknown schema, or an entry is not what it should be.
    """
    text = read_text(path, error=ScanFileError)
    return with_spectra(Scan(**vars(parse_scan(text, str(path)))), text, path)
