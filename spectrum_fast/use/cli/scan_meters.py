"""How far a scan is, told to people on stderr and to programs where they asked for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.use.cli.consoles import err
from spectrum_fast.use.report.json_progress import open_json_meter
from spectrum_fast.use.report.progress import ScanMeter


@contextmanager
def scan_meters(*, quiet: bool, json_progress: str) -> Iterator[Callable[[ScanProgress], None]]:
    """What to call with every step of a scan.

    Args:
        quiet: tell people nothing.
        json_progress: file for programs; ``-`` is stderr, empty is none.
    """
    with ScanMeter(err, quiet=quiet) as meter, open_json_meter(json_progress, sys.stderr) as json_meter:

        def show_progress(step: ScanProgress) -> None:
            meter(step)
            json_meter(step)

        yield show_progress
