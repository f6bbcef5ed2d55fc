"""A checkpoint to a scan: decide from the headers what to read, then read, score and forget one tensor at a time."""

from __future__ import annotations

from spectrum_fast.report.step import ScanProgress
from spectrum_fast.scanning.run import scan

__all__ = ["ScanProgress", "scan"]
