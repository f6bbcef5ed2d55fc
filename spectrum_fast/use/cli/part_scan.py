"""``scan --part``, and a scan that a launcher shares among processes: each scores a part, and rank 0 merges them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import typer

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import UsageError
from spectrum_fast.scanning.journal import Journal
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.merge import merge_when_made
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.parts import Part, scan_part
from spectrum_fast.scanning.ranks import Rank
from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.interrupts import terminable
from spectrum_fast.use.cli.output import save_scan
from spectrum_fast.use.cli.scan_end import name_failures
from spectrum_fast.use.cli.scan_session import ScanSession, write_timing
from spectrum_fast.words import count_of

Meters: TypeAlias = Callable[[], AbstractContextManager[Callable[[ScanProgress], None]]]


def scan_one_part(model: str, run: ScanSession, meters: Meters, timing: Path | None) -> None:
    """Score one part into its file. Failures are named, but no error: they are the merged scan's to report."""
    found = _score(model, run.options, run, meters)
    if timing is not None:
        write_timing(found.run_facts(), timing)
    name_failures(tuple(found.failures.values()))
    count = count_of(len(found.modules) + len(found.failures), "module")
    say(f"part {run.part}: {count} in {run.path}; `merge` takes all parts")


def scan_shared(
    model: str,
    rank: Rank,
    run: ScanSession,
    meters: Meters,
    end: Callable[[Scan, Callable[[Scan], Path]], None],
) -> None:
    """Score this process's part; the first process waits for the others, merges the parts and deletes them."""
    if run.options.restart:
        raise UsageError(
            "--restart: expected to scan with one process, found several, which a launcher may start anew and which "
            f"would throw their work away each time; delete {run.out}.part-* instead"
        )
    _score(model, rank.own_options(run.options), run, meters)
    if rank.part.number:
        return
    out, count = run.out, rank.part.count
    assert out is not None  # noqa: S101 - a part has one

    def save(result: Scan) -> Path:
        save_scan(result, out)
        for path in (Part(number, count).path(out) for number in range(count)):
            if path.exists() and not Journal.read(path).problems:  # which stay, for whoever looks into them
                path.unlink()
        return out

    with terminable():
        result = merge_when_made(out, count)
        end(result, save)
    if result.failures and not rank.restarts:
        raise typer.Exit(1)


def _score(model: str, options: ScanOptions, run: ScanSession, meters: Meters) -> Ledger:
    with run.journal() as journal, meters() as progress:
        assert journal is not None  # noqa: S101 - it is what a part consists of
        assert run.part is not None  # noqa: S101
        return scan_part(model, options, run.part, journal, progress)
