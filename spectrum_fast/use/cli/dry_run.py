"""``scan --dry-run``."""

from __future__ import annotations

from dataclasses import replace

from spectrum_fast.read.checkpoint.hub import is_cached
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.prediction import predict_scan
from spectrum_fast.scanning.scoring import open_and_plan
from spectrum_fast.use.cli.consoles import show
from spectrum_fast.use.report.scan_plan import scan_plan_table


def show_plan(model: str, options: ScanOptions) -> None:
    """Show what a scan would do. Of a hub id that is not in the cache headers and a few weights are read, none stored.

    Raises:
        SpectrumFastError: as the scan would.
    """
    options = replace(options, no_store=options.no_store or not is_cached(model))
    checkpoint, plan = open_and_plan(model, options)
    show(scan_plan_table(checkpoint, plan, predict_scan(plan, options)))
