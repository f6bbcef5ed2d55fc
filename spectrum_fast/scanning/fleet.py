"""Many checkpoints into a library of scans: what is there is kept, what failed is tried again, nothing is lost.

What a fleet needs to go on lies in the folder ``.fleet`` of the library: the journals of scans that are not complete,
and of each that is what it was made of, by which a checkpoint that has not changed is known.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spectrum_fast.choose.library import open_library
from spectrum_fast.choose.library.file_names import slug, whole_file_name
from spectrum_fast.choose.selection.scan_result import load_scan
from spectrum_fast.errors import JournalError, RankError, ScanFileError, SelectionError, SpectrumFastError, UsageError
from spectrum_fast.files import write_text_atomic
from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.scanning.content import is_scan_of
from spectrum_fast.scanning.fleet_list import FleetModel
from spectrum_fast.scanning.journal import Journal
from spectrum_fast.scanning.on_ray import ray_session
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.provenance import PLACES_APART, common_identity, scan_identity
from spectrum_fast.scanning.run import run_scan
from spectrum_fast.scanning.step import ScanProgress

_AT_ONCE = 16
"""Checkpoints that Ray scans at once: enough that one which is opened or ends leaves no worker idle."""


@dataclass(frozen=True)
class FleetOutcome:
    """What became of one checkpoint.

    Attributes:
        model: which one.
        state: ``scanned``, ``kept`` (the library has its scan) or ``failed``.
        detail: in words, how many modules it has, or why it failed.
        attempts: how often it was tried.
        seconds: that the last attempt took.
        may_pass: of a failure, whether another attempt may do better.
    """

    model: FleetModel
    state: str
    detail: str
    attempts: int = 1
    seconds: float = 0.0
    may_pass: bool = False


def scan_fleet(
    models: Sequence[FleetModel],
    folder: Path,
    options: ScanOptions,
    *,
    attempts: int = 3,
    tell: Callable[[FleetOutcome], None] = lambda _: None,
) -> list[FleetOutcome]:
    """Scan checkpoints into a library, one after the other or, on Ray, many at once.

    Args:
        models: which, with the names of their scans.
        folder: of the library; made if it is not there.
        options: for all of them; ``restart`` scans anew what is there or was begun.
        attempts: how often a checkpoint that failed is tried, each time after all others.
        tell: told of every checkpoint that is done, for good or not.

    Returns:
        What became of each, in the order given.

    Raises:
        ScanFileError: the library cannot be written.
        BackendUnavailableError: Ray or its cluster is not there.
    """
    try:
        (folder / ".fleet").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScanFileError(f"{folder}: the library cannot be made: {error.strerror or error}") from error
    outcomes: dict[FleetModel, FleetOutcome] = {}
    left = list(models)
    ended = threading.Event()

    def go_on(_: ScanProgress) -> None:
        if ended.is_set():
            raise RankError("the fleet has been interrupted")

    with nullcontext() if options.ray is None else ray_session(options.ray), thread_count(options.threads):
        for attempt in range(1, attempts + 1):
            scan = partial(_scan_or_fail, folder=folder, options=replace(options, progress=go_on), attempt=attempt)
            for outcome in map(scan, left) if options.ray is None else _at_once(scan, left, ended):
                outcomes[outcome.model] = outcome
                tell(outcome)
            left = [model for model in left if outcomes[model].may_pass]
            options = replace(options, restart=False)  # the next attempt goes on with what this one has begun
    return [outcomes[model] for model in models]


def _at_once(
    scan: Callable[[FleetModel], FleetOutcome], models: Sequence[FleetModel], ended: threading.Event
) -> Iterator[FleetOutcome]:
    """Each in a thread, which waits for Ray; when this ends early they are told so."""
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="spectrum-fast-fleet")
    try:
        for future in as_completed([pool.submit(scan, model) for model in models]):
            yield future.result()
    except BaseException:
        ended.set()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # threads that wait for Ray end with it


def _scan_or_fail(model: FleetModel, *, folder: Path, options: ScanOptions, attempt: int) -> FleetOutcome:
    started = time.monotonic()
    may_pass = False
    try:
        state, detail = _scan(model, folder, options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checkpoints have nothing to do with it
        foreseen = isinstance(error, SpectrumFastError)
        state, detail = "failed", str(error) if foreseen else f"{type(error).__name__}: {error}"
        may_pass = not isinstance(error, (UsageError, SelectionError))
    return FleetOutcome(model, state, detail, attempt, time.monotonic() - started, may_pass)


def _scan(model: FleetModel, folder: Path, options: ScanOptions) -> tuple[str, str]:
    """Scan one checkpoint if need be; its state and what there is to say."""
    checkpoint = open_checkpoint(model.source, no_store=options.no_store)
    identity = json.loads(json.dumps(scan_identity(options, checkpoint)))
    scan_file = folder / whole_file_name(model.name, options.criterion)
    beside = folder / ".fleet" / f"{slug(model.name)}.{options.criterion}"
    made_of, journal_path = (beside.with_name(f"{beside.name}.{kind}") for kind in ("made-of.json", "journal"))
    incomplete = beside.with_name(f"{beside.name}.incomplete.json")
    if not options.restart and scan_file.exists():
        known = _read_json(made_of)
        if known == identity:
            return "kept", "its scan is in the library"
        # A copy, or the same at another place: its bytes are read, which is little beside scoring them.
        common = common_identity(identity, PLACES_APART)
        comparable = isinstance(known, dict) and common_identity(known, PLACES_APART) == common
        if comparable and is_scan_of(load_scan(scan_file), checkpoint, thorough=True):
            write_text_atomic(made_of, json.dumps(identity), error=ScanFileError)
            return "kept", "its scan is in the library, of the same bytes at another place or time"
    goes_on = not options.restart and _began_with(journal_path, identity)
    with Journal(journal_path, restart=not goes_on) as journal:
        scan = replace(run_scan(model.source, options, journal=journal, progress=options.progress), model=model.name)
        if scan.failures:
            scan.save(incomplete)
            return "failed", (
                f"{len(scan.failures)} of {len(scan.modules) + len(scan.failures)} modules have no score: "
                f"{scan.failures[0].message}; all others are in {incomplete}"
            )
        open_library(str(folder)).add(scan, model=model.name, replace=True)
        write_text_atomic(made_of, json.dumps(identity), error=ScanFileError)
        journal.finish()
    incomplete.unlink(missing_ok=True)
    return "scanned", f"{len(scan.modules)} modules"


def _began_with(path: Path, identity: dict[str, Any]) -> bool:
    """Whether a journal is of this scan; another one is of a checkpoint as it was, or of other options."""
    try:
        return Journal.read(path).identity == identity
    except JournalError:
        return False


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
