"""``scan --dry-run``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from spectrum_fast.errors import BackendUnavailableError, CheckpointError
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.prediction import predict_scan
from spectrum_fast.scanning.scoring import open_and_plan
from spectrum_fast.use.cli.consoles import show
from spectrum_fast.use.report.scan_plan import scan_plan_table


def show_plan(model: str, options: ScanOptions) -> None:
    """Show what a scan would do; of a hub id the headers and a few weights are read, where that is possible.

    Raises:
        SpectrumFastError: as the scan would.
    """
    opened = None
    with suppress(CheckpointError, BackendUnavailableError):  # no connection, or no obstore: the cache may have it
        opened = open_and_plan(model, replace(options, no_store=True))
    checkpoint, plan = opened or open_and_plan(model, options)
    show(scan_plan_table(checkpoint, plan, predict_scan(plan, options)))
