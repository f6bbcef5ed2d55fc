"""Scans in, one file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectrum_fast.choose.selection.ranking import check_percent
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import UsageError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.use.report.html.page import render_page
from spectrum_fast.use.report.html.payload import build_payload, make_labels


def write_report(
    scans: Sequence[Scan],
    path: str | Path,
    *,
    top_percent: float = 25,
    files: Sequence[str] | None = None,
) -> None:
    """Write a report on one scan, or on several to be compared, as one HTML file that needs nothing else.

    ``files`` are where the scans came from, to tell two of one model apart.

    Raises:
        UsageError: there is no scan, one of them scored nothing, or ``top_percent`` is out of range.
        BackendUnavailableError: plotly is not installed.
        SpectrumFastError: the file cannot be written; what was there before is unchanged.
    """
    check_percent(top_percent)
    if not scans:
        raise UsageError("report: expected at least one scan, found none")
    for scan in scans:
        if not scan.modules and not scan.failures:
            raise UsageError(f"report: expected scores, found none in the scan of {scan.model}")
    names = files if files is not None else [f"scan {place}" for place in range(1, len(scans) + 1)]
    labels = make_labels(scans, names)
    payload = build_payload(scans, top_percent=top_percent, labels=labels)
    write_text_atomic(path, render_page(payload, f"{' / '.join(label[:80] for label in labels)} · spectrum_fast"))
