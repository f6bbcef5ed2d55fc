"""A scan shared by several processes: rank 0 leads, the others follow."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import RankError, SpectrumFastError
from spectrum_fast.read.stream import StreamOptions
from spectrum_fast.scanning.coordinator import Coordinator
from spectrum_fast.scanning.exchange import Exchange
from spectrum_fast.scanning.journal import Journal
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.memory import explain_memory
from spectrum_fast.scanning.messages import describe_scan, digest_scan
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.provenance import scan_identity, scan_settings
from spectrum_fast.scanning.rank_work import Heart, RankWork
from spectrum_fast.scanning.ranks import Rank
from spectrum_fast.scanning.run import assemble_scan, make_scorer, open_and_plan
from spectrum_fast.scanning.threads import thread_count
from spectrum_fast.scanning.work import do_work
from spectrum_fast.use.report.step import ScanProgress

_READ_AHEAD = 4
"""Weights that a rank reads ahead, besides the byte budget."""
_WAIT_SECONDS = 0.1
"""Time between two looks for rank 0's announcement."""


def lead_scan(
    exchange: Exchange,
    source: str | os.PathLike[str],
    options: ScanOptions,
    *,
    journal: Journal | None = None,
    progress: Callable[[ScanProgress], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Scan:
    """Scan as rank 0: share out the work, do some of it, take in all results.

    Args:
        exchange: the connection to the others.
        source: the checkpoint, which every rank must see.
        options: what to score and how, the same for every rank.
        journal: entered, not begun.
        progress: called, from another thread, at the beginning and after every module of any rank.
        say: told, likewise, what a person should know about the ranks.

    Returns:
        The scan of all ranks together.

    Raises:
        RankError: a rank failed, and its error; whatever was delivered by then is in the journal.
        SpectrumFastError: as for :func:`spectrum_fast.scan`.
    """
    started = time.perf_counter()
    options = _of_rank(options, exchange.rank)
    coordinator = None
    try:
        checkpoint, plan = open_and_plan(source, options)
        identity = scan_identity(options, checkpoint)
        if journal is not None:
            journal.begin(identity)
        description = describe_scan(identity, plan)
        scan = digest_scan(description)
        ledger = Ledger(plan, journal, progress or (lambda _: None), started)
        coordinator = Coordinator(exchange.clone(), plan, ledger, scan, say=say)
        exchange.announce(description)
        with Heart(exchange), explain_memory(), thread_count(options.threads) as threads:
            coordinator.start()
            settings = scan_settings(options, threads)
            work = RankWork(exchange, plan.weights, scan, settings, coordinator.check)
            reading = do_work(work, make_scorer(options), _stream_options(options))
        coordinator.wait_for_others()
        coordinator.check()
        run = {"processes": len(coordinator.seen), "lost_processes": len(coordinator.lost), "threads": threads}
        run |= reading.facts()
        with thread_count(threads):
            return assemble_scan(checkpoint, plan, options, ledger, run)
    except BaseException as error:
        problem = str(error) if isinstance(error, SpectrumFastError) else "interrupted"
        if coordinator is not None:
            coordinator.stop(problem)
        exchange.abandon(problem)
        raise


def follow_scan(exchange: Exchange, source: str | os.PathLike[str], options: ScanOptions) -> None:
    """Scan as any other rank: take work until the scan is over.

    Raises:
        RankError: rank 0 is gone or stopped the scan, or speaks of another scan than this one.
        SpectrumFastError: the checkpoint cannot be opened or read; rank 0 is told, and the scan ends.
    """
    options = _of_rank(options, exchange.rank)
    with Heart(exchange):
        try:
            while (announced := exchange.announcement()) is None:
                if problem := exchange.finished():
                    raise RankError(f"rank 0 stopped the scan: {problem}")
                time.sleep(_WAIT_SECONDS)
            checkpoint, plan = open_and_plan(source, options)
            description = describe_scan(scan_identity(options, checkpoint), plan)
            differing = [key for key in {**announced, **description} if announced.get(key) != description.get(key)]
            if differing:
                raise RankError(
                    f"expected the same scan as rank 0's, found a difference in {', '.join(differing)}; give all ranks "
                    "the same checkpoint, options and version"
                )
            with explain_memory(), thread_count(options.threads) as threads:
                settings = scan_settings(options, threads)
                work = RankWork(exchange, plan.weights, digest_scan(description), settings)
                do_work(work, make_scorer(options), _stream_options(options))
        except SpectrumFastError as error:
            with suppress(RankError):
                if exchange.finished() is None:
                    exchange.tell({"error": str(error), "host": socket.gethostname()})
            raise


def _of_rank(options: ScanOptions, rank: Rank) -> ScanOptions:
    """The options as this rank takes them: its share of the cores, and a GPU of its own."""
    device = f"cuda:{rank.local}" if options.device == "cuda" else options.device
    return replace(options, threads=options.threads or rank.threads, device=device)


def _stream_options(options: ScanOptions) -> StreamOptions:
    """What a rank takes and does not score yet, another one could be scoring: it reads few weights ahead."""
    return replace(options.stream, read_ahead=_READ_AHEAD)
