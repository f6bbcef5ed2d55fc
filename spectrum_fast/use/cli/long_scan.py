"""A scan as the command runs it: with a journal beside its file, alone or as one of several ranks, until it is safe."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import ScanFileError, SpectrumFastError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.scanning.exchange import Exchange
from spectrum_fast.scanning.journal import Journal, journal_path
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.ranks import Rank
from spectrum_fast.scanning.run import run_scan
from spectrum_fast.scanning.shared import follow_scan, lead_scan
from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.interrupts import terminable
from spectrum_fast.use.cli.output import require_writable, save_scan
from spectrum_fast.use.report.step import ScanProgress


class LongScan:
    """Runs a scan and keeps what it finds.

    Args:
        model: the checkpoint.
        options: what to score and how.
        keep_journal: keep a journal beside the scan file while the scan runs.
        rank: which process this is, or None if it is the only one.
    """

    def __init__(
        self,
        model: str,
        options: ScanOptions,
        *,
        keep_journal: bool,
        rank: Rank | None,
    ) -> None:
        self._model, self._options, self._rank = model, options, rank
        self._out = out = None if options.out is None else Path(options.out)
        # A pipe or a device has no place beside it.
        self._journal_path = (
            journal_path(out) if keep_journal and out is not None and (out.is_file() or not out.exists()) else None
        )
        self._kept = 0
        self._journal: Journal | None = None
        self._stack = ExitStack()
        self._exchange: Exchange | None = None

    def __enter__(self) -> LongScan:
        self._stack.enter_context(terminable())
        if self._rank is not None:
            self._exchange = Exchange(self._rank)
        return self

    def __exit__(self, *leaving: object) -> None:
        self._stack.close()

    def follow(self) -> None:
        """Work for rank 0 until its scan is over."""
        assert self._exchange is not None  # noqa: S101
        follow_scan(self._exchange, self._model, self._options)

    def run(self, progress: Callable[[ScanProgress], None]) -> Scan:
        """Scan, alone or as rank 0.

        Raises:
            KeyboardInterrupt: interrupted; its text says what is safe and how to go on.
            SpectrumFastError: as for :func:`spectrum_fast.scan`.
        """
        try:
            if self._out is not None:
                require_writable(self._out, "--out")
            if self._journal_path is not None:
                self._journal = self._stack.enter_context(Journal(self._journal_path, restart=self._options.restart))
            if self._exchange is None:
                return run_scan(self._model, self._options, journal=self._journal, progress=progress)
            return lead_scan(
                self._exchange,
                self._model,
                self._options,
                journal=self._journal,
                progress=progress,
                say=lambda text: say(f"warning: {text}", style="yellow"),
            )
        except SpectrumFastError as error:
            if self._exchange is not None:
                self._exchange.abandon(str(error))
            raise
        except KeyboardInterrupt as interrupt:
            raise type(interrupt)(self._what_is_safe()) from interrupt

    def save(self, result: Scan) -> None:
        """Write the scan file, and let the journal go (:meth:`Journal.finish`).

        Raises:
            ScanFileError: it cannot be written; the journal is kept.
        """
        assert self._out is not None  # noqa: S101
        save_scan(result, self._out)
        if self._journal is not None:
            self._journal.finish()

    def _what_is_safe(self) -> str:
        if self._journal is None or not len(self._journal):
            return "interrupted: no file is left half-written"
        return (
            f"interrupted: {len(self._journal)} finished modules are safe in {self._journal_path}; the same command "
            "goes on from there"
        )


def write_timing(result: Scan, path: Path) -> None:
    """Write what passed by in making a scan as one JSON object.

    Raises:
        ScanFileError: the file cannot be written.
    """
    write_text_atomic(path, json.dumps(dict(result.run), indent=2, allow_nan=False) + "\n", error=ScanFileError)
