"""A scan as the command runs it: what is finished is kept in a file beside the scan file, until that is safe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import ScanFileError, UsageError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.scanning.journal import Journal, journal_path
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part
from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.use.cli.consoles import err
from spectrum_fast.use.cli.interrupts import terminable
from spectrum_fast.use.cli.output import file_named_after, free_name, require_writable, save_scan
from spectrum_fast.use.report.json_progress import open_json_meter
from spectrum_fast.use.report.progress import ScanMeter


class ScanSession:
    """Holds the journal of a scan, or the file of a part.

    Attributes:
        out: the scan file to write, ``./NAME.scan.json`` where none is named; None for a part of one without a name.
        path: of the journal, or None without one.

    Raises:
        UsageError: a part without a file beside which it can be kept.
    """

    def __init__(self, options: ScanOptions, *, keep_journal: bool, part: Part | None = None, model: str = "") -> None:
        self.options, self.part = options, part
        self._named = options.out is not None
        out = None if options.out is None else Path(options.out)
        self.out = out = file_named_after(model) if out is None and part is None else out
        self.path: Path | None = None
        # A pipe or a device has no place beside it.
        if out is not None and keep_journal and (out.is_file() or not out.exists()):
            self.path = journal_path(out) if part is None else part.path(out)
        elif part is not None:
            raise UsageError(
                f"part {part} of a scan is a file beside the scan file: expected its name (--out scan.json) and no "
                f"--no-journal, found {'no --out' if out is None else f'--out {out}'}"
            )
        self._journal: Journal | None = None

    @contextmanager
    def journal(self) -> Iterator[Journal | None]:
        """The journal, if one is kept, open until the scan file is safe.

        Raises:
            KeyboardInterrupt: interrupted, by SIGTERM too; its text says what is safe and how to go on.
            SpectrumFastError: the scan file cannot be written, or the journal is another scan's.
        """
        if self.out is not None:
            require_writable(self.out, "--out")
        kept = nullcontext() if self.path is None else Journal(self.path, restart=self.options.restart)
        with terminable(), kept as self._journal:
            try:
                yield self._journal
            except KeyboardInterrupt as interrupt:
                raise type(interrupt)(self._what_is_safe()) from interrupt

    def save(self, result: Scan) -> Path:
        """Write the scan file, and let the journal go (:meth:`Journal.finish`); returns where it was written.

        A file whose name nobody chose never takes the place of another scan: the next free name is taken.

        Raises:
            ScanFileError: it cannot be written; the journal is kept.
        """
        assert self.out is not None  # noqa: S101
        path = self.out if self._named else free_name(self.out, result)
        save_scan(result, path)
        if self._journal is not None:
            self._journal.finish()
            self._journal = None
        return path

    def _what_is_safe(self) -> str:
        if self._journal is None or not len(self._journal):
            return "interrupted: no file is left half-written"
        return (
            f"interrupted: {len(self._journal)} finished modules are safe in {self.path}; the same command "
            "goes on from there"
        )


@contextmanager
def scan_meters(*, quiet: bool, json_progress: str) -> Iterator[Callable[[ScanProgress], None]]:
    """What to call with every step of a scan."""
    with ScanMeter(err, quiet=quiet) as meter, open_json_meter(json_progress, sys.stderr) as json_meter:

        def show_progress(step: ScanProgress) -> None:
            meter(step)
            json_meter(step)

        yield show_progress


def write_timing(facts: Mapping[str, Any], path: Path) -> None:
    """Write what passed by in making a scan as one JSON object.

    Raises:
        ScanFileError: the file cannot be written.
    """
    write_text_atomic(path, json.dumps(dict(facts), indent=2, allow_nan=False) + "\n", error=ScanFileError)
