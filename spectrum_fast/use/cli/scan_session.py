"""A scan as the command runs it: what is finished is kept in a file beside the scan file, until that is safe.

It is run whole, as one part (``--part``), or shared among the processes of a launcher: each scores a part, and the
first merges them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.journal import Journal, journal_path
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.merge import merge_when_made
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part, scan_part
from spectrum_fast.scanning.ranks import Rank
from spectrum_fast.scanning.run import run_scan
from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.use.cli.consoles import err, say
from spectrum_fast.use.cli.interrupts import terminable
from spectrum_fast.use.cli.output import file_named_after, free_name, require_writable, save_scan
from spectrum_fast.use.cli.scan_end import end_scan, name_failures, write_timing
from spectrum_fast.use.report.json_progress import open_json_meter
from spectrum_fast.use.report.progress import ScanMeter
from spectrum_fast.use.report.scan_plan import spectra_words
from spectrum_fast.words import count_of


class ScanSession:
    """One run of the command.

    Attributes:
        out: the scan file to write, ``./NAME.scan.json`` where none is named; None for a part of one without a name.
        path: of the journal, or of the part's file; None without one.

    Raises:
        UsageError: a part without a file beside which it can be kept.
    """

    def __init__(
        self,
        model: str,
        options: ScanOptions,
        part: Part | None,
        *,
        keep_journal: bool,
        timing: Path | None,
        json_progress: str,
        quiet: bool,
        words: bool,
    ) -> None:
        self.model, self.options, self.part = model, options, part
        self.timing, self.json_progress, self.quiet, self.words = timing, json_progress, quiet, words
        out = None if options.out is None else Path(options.out)
        self.out = out = file_named_after(model, options) if out is None and part is None else out
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

    def run(self, rank: Rank | None) -> bool:
        """Scan; whether the exit code has to say that some tensors have no score.

        Args:
            rank: which of several processes this one is, None if it is the only one.

        Raises:
            KeyboardInterrupt: interrupted, by SIGTERM too; its text says what is safe and how to go on.
            SpectrumFastError: the model cannot be scanned, a file not be written, or the journal is another scan's.
        """
        if rank is not None:
            return self._run_shared(rank)
        return self._run_whole() if self.part is None else self._run_part()

    def _run_whole(self) -> bool:
        announce = (lambda plan: say(spectra_words(plan))) if self.words and self.options.spectra else None
        with self._kept() as journal:
            with self._meters() as progress:
                result = run_scan(self.model, self.options, journal=journal, progress=progress, planned=announce)
            self._end(result, self._save)
        return bool(result.failures)

    def _run_part(self) -> bool:
        """Score one part into its file. Failures are named, but no error: they are the merged scan's to report."""
        found = self._score(self.options)
        if self.timing is not None:
            write_timing(found.run_facts(), self.timing)
        name_failures(tuple(found.failures.values()))
        count = count_of(len(found.modules) + len(found.failures), "module")
        say(f"part {self.part}: {count} in {self.path}; `merge` takes all parts")
        return False

    def _run_shared(self, rank: Rank) -> bool:
        """Score this process's part; the first process waits for the others, merges the parts and deletes them."""
        if self.options.restart:
            raise UsageError(
                "--restart: expected to scan with one process, found several, which a launcher may start anew and "
                f"which would throw their work away each time; delete {self.out}.part-* instead"
            )
        self._score(rank.own_options(self.options))
        if rank.part.number:
            return False
        out, count = self.out, rank.part.count
        assert out is not None  # noqa: S101 - a part has one

        def save(result: Scan) -> Path:
            save_scan(result, out)
            for path in (Part(number, count).path(out) for number in range(count)):
                if path.exists() and not Journal.read(path).problems:  # which stay, for whoever looks into them
                    path.unlink()
            return out

        with terminable():
            result = merge_when_made(out, count)
            self._end(result, save)
        return bool(result.failures) and not rank.restarts

    def _score(self, options: ScanOptions) -> Ledger:
        with self._kept() as journal, self._meters() as progress:
            assert journal is not None  # noqa: S101 - it is what a part consists of
            assert self.part is not None  # noqa: S101
            return scan_part(self.model, options, self.part, journal, progress)

    @contextmanager
    def _kept(self) -> Iterator[Journal | None]:
        """The journal, if one is kept, open until the scan file is safe."""
        if self.out is not None:
            require_writable(self.out, "--out")
        kept = nullcontext() if self.path is None else Journal(self.path, restart=self.options.restart)
        with terminable(), kept as self._journal:
            try:
                yield self._journal
            except KeyboardInterrupt as interrupt:
                safe = "no file is left half-written"
                if count := len(self._journal or ()):
                    safe = f"{count} finished modules are safe in {self.path}; the same command goes on from there"
                raise type(interrupt)(f"interrupted: {safe}") from interrupt

    @contextmanager
    def _meters(self) -> Iterator[Callable[[ScanProgress], None]]:
        """What to call with every step of a scan."""
        with ScanMeter(err, quiet=not self.words) as bar, open_json_meter(self.json_progress, sys.stderr) as lines:

            def show_progress(step: ScanProgress) -> None:
                bar(step)
                lines(step)

            yield show_progress

    def _save(self, result: Scan) -> Path:
        """Write the scan file, and let the journal go (:meth:`Journal.finish`); returns where it was written.

        A file whose name nobody chose never takes the place of another scan: the next free name is taken.
        """
        assert self.out is not None  # noqa: S101
        path = save_scan(result, self.out if self.options.out is not None else free_name(self.out, result))
        if self._journal is not None:
            self._journal.finish()
            self._journal = None
        return path

    def _end(self, result: Scan, save: Callable[[Scan], Path]) -> None:
        end_scan(result, save, self.options, timing=self.timing, quiet=self.quiet, words=self.words)
