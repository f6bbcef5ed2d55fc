"""A checkpoint to a scan: decide from the headers what to read, then read, score and forget one tensor at a time."""

from __future__ import annotations

from spectrum_fast.scanning.step import ScanProgress

__all__ = ["ScanProgress"]
