"""Scan a checkpoint: read each tensor once, score it, forget it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from torch import nn

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.device_check import require_right_answers
from spectrum_fast.measure.spectra.engine import DEFAULT_TOLERANCE, compute_spectrum
from spectrum_fast.read.checkpoint import Checkpoint, open_checkpoint
from spectrum_fast.read.checkpoint.naming import natural_key
from spectrum_fast.scanning.journal import Journal, journal_path
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.live import plan_live, score_live
from spectrum_fast.scanning.memory import explain_memory
from spectrum_fast.scanning.options import ScanOptions, thread_count
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scanning.refine import refine_cuts
from spectrum_fast.scanning.results import copied
from spectrum_fast.scanning.scorers import OneByOne, Scorer, Together, or_on_cpu
from spectrum_fast.scanning.work import OwnWork, do_work
from spectrum_fast.use.report.step import ScanProgress


def scan(
    source: str | os.PathLike[str] | nn.Module,
    *,
    criterion: str = "spectrum",
    method: str = "auto",
    precision: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
    device: str = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_norms: bool = False,
    split_fused: bool = False,
    threads: int | None = None,
    top_percent: float | None = 25.0,
    no_store: bool = False,
    buffer_gib: float | None = None,
    direct_io: str = "off",
    out: str | os.PathLike[str] | None = None,
    journal: str | os.PathLike[str] | None = None,
    restart: bool = False,
    progress: Callable[[ScanProgress], None] | None = None,
) -> Scan:
    """Score every weight matrix of a checkpoint, or of a live model.

    Tensors are read in file order into a buffer of fixed size, while the ones before are scored; memory never holds
    the model. No model code is run and nothing is unpickled.

    With ``out`` (or ``journal``) an interrupted scan loses nothing: the same call goes on where it was, and the scan it
    ends with is, byte for byte, that of a scan that was never interrupted.

    Args:
        source: a checkpoint directory, one ``.safetensors`` file, a hub id ``org/name``, or a folder or file behind
            ``https://``, ``s3://`` or ``gs://``; or a live ``torch.nn.Module``, scanned in place and left as it is
            (:mod:`spectrum_fast.scanning.live`).
        criterion: ``spectrum`` (the published rule) or ``mp``.
        method: ``auto``, ``band``, ``svd`` or ``rsvd`` (a quick estimate); see :func:`spectrum_fast.spectrum`.
        precision: ``auto``, ``float32`` or ``float64``.
        tolerance: relative accuracy wanted of every score.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. A GPU must first compute known spectra right, or it is
            refused; matrices of one shape are scored together on it, and what its memory does not hold goes to the CPU,
            which the record says. ``auto`` is the CPU in this version.
        include: shell-style patterns (or ``re:...``) of module names to scan; empty means all.
        exclude: patterns of module names to leave out.
        include_norms: score 1-D tensors too, as one row each, like the reference implementation.
        split_fused: score the projections that a weight fuses (``qkv_proj``, ``gate_up_proj``, ``query_key_value``,
            ``Wqkv``, ``c_attn``) one by one; a weight whose layout the configuration does not tell is a failure.
        threads: CPU threads of this scan; None leaves torch's setting.
        top_percent: share of each module type that is going to be selected. Where two scores at that cut are nearer
            than their error bounds, both are computed again in float64 (method and precision ``auto`` only;
            ``provenance`` names them as ``refined``). None, and a live model, leave every cut as it is.
        no_store: read a hub id over the network, range by range, and keep none of its files.
        buffer_gib: hard limit of the buffer that weights are read into, GiB; a matrix larger than half of it is read
            and scored block by block. None: 2, or an eighth of the memory if that is less, touched only as needed.
        direct_io: ``off`` (through the page cache), ``on`` (past it, O_DIRECT, or an error) or ``auto`` (past it where
            the file system allows).
        out: scan file to write when all is done. Until then finished modules are kept in a journal beside it,
            ``.NAME.journal``, which is deleted once the scan file is written, unless a module failed by a fault of this
            program or for want of memory: then it stays, with the traceback. A live model keeps none: it changes.
        journal: the journal's path, to keep it elsewhere; without ``out`` it stays, complete, and is yours to delete.
        restart: throw away what an interrupted scan left in the journal.
        progress: called at the beginning and after every tensor.

    Returns:
        The scan: one score or one failure for every tensor that is a weight matrix, and what was skipped and why.
        Whatever goes wrong with one tensor is its failure alone; the scan goes on. Its ``run`` holds the times, which
        its file does not.

    Raises:
        CheckpointError: the checkpoint cannot be opened, or changed while being read.
        UsageError: an option is out of range, or nothing is left to score.
        SelectionError: a pattern matches no tensor.
        BackendUnavailableError: the device, or direct I/O, was asked for by name and cannot be used.
        JournalError: the journal belongs to another scan (the checkpoint or an option changed), is in use by another
            process, or cannot be written, as on a full disk; finished modules are safe in it.
        OutOfMemoryError: no memory for the buffer or the plan; finished modules are safe in the journal.
        ScanFileError: ``out`` cannot be written; the journal is kept.
    """
    options = ScanOptions(
        criterion=criterion,
        method=method,
        precision=precision,
        tolerance=tolerance,
        device=device,
        include=include,
        exclude=exclude,
        include_norms=include_norms,
        split_fused=split_fused,
        threads=threads,
        top_percent=top_percent,
        no_store=no_store,
        buffer_gib=buffer_gib,
        direct_io=direct_io,
    )
    if isinstance(source, nn.Module):
        if journal is not None or restart:
            raise UsageError("journal: expected none for a live model, whose values change; leave it out")
        path = None
    else:
        path = journal if journal is not None else journal_path(out) if out is not None else None
    if restart and path is None:
        raise UsageError("restart: expected a journal to throw away, found neither 'out' nor 'journal'; pass one")
    with nullcontext() if path is None else Journal(path, restart=restart) as opened:
        result = run_scan(source, options, journal=opened, progress=progress)
        if out is not None:
            result.save(os.fspath(out))
            if opened is not None:
                opened.finish()
    return result


def run_scan(
    source: str | os.PathLike[str] | nn.Module,
    options: ScanOptions,
    *,
    journal: Journal | None = None,
    progress: Callable[[ScanProgress], None] | None = None,
) -> Scan:
    """Scan with a journal that is open; :func:`scan` says the rest.

    Args:
        source: the checkpoint, or a live model.
        options: what to score and how.
        journal: entered, not begun. The caller removes it when the result is safe.
        progress: called at the beginning and after every tensor.
    """
    started = time.perf_counter()
    live = None
    if isinstance(source, nn.Module):
        live, plan = plan_live(source, options)
        checkpoint = live.checkpoint
    else:
        checkpoint, plan = open_and_plan(source, options)
    if journal is not None:
        journal.begin(options.identity(checkpoint))
    ledger = Ledger(plan, journal, progress or (lambda _: None), started)
    with explain_memory(), thread_count(options.threads) as threads:
        settings = options.settings(threads)
        facts: dict[str, Any] = {}
        if live is not None:
            scorer = make_scorer(options)
            score_live(live, plan, scorer, options.device, lambda result: ledger.record(result, settings))
            options = replace(options, top_percent=None)  # there is no file to read a doubtful weight from again
        else:
            facts = do_work(OwnWork(plan.weights, ledger, settings), make_scorer(options), options.stream).facts()
        return assemble_scan(checkpoint, plan, options, ledger, {"processes": 1, "threads": threads, **facts})


def open_and_plan(source: str | os.PathLike[str], options: ScanOptions) -> tuple[Checkpoint, ScanPlan]:
    """Open a checkpoint and decide what of it is scored."""
    checkpoint = open_checkpoint(source, no_store=options.no_store)
    plan = plan_scan(
        checkpoint,
        include=options.include,
        exclude=options.exclude,
        include_norms=options.include_norms,
        split=options.split_fused,
    )
    options.require_buffer(plan)
    return checkpoint, plan


def make_compute(options: ScanOptions) -> Callable[..., Any]:
    """The function from a matrix to its spectrum under these options."""
    return partial(
        compute_spectrum,
        criterion=find_criterion(options.criterion),
        method=options.method,
        precision=options.precision,
        tolerance=options.tolerance,
    )


def make_scorer(options: ScanOptions) -> Scorer:
    """What scores the weights of a checkpoint on the device of these options.

    Raises:
        BackendUnavailableError: the device computes known spectra wrong.
    """
    compute = make_compute(options)
    if options.device == "cpu":
        return OneByOne(compute)
    criterion = find_criterion(options.criterion)
    require_right_answers(options.device, criterion)
    if options.method == "auto" and options.precision == "auto":
        return Together(criterion, options.tolerance, or_on_cpu(compute))
    return OneByOne(or_on_cpu(compute))


def assemble_scan(
    checkpoint: Checkpoint, plan: ScanPlan, options: ScanOptions, ledger: Ledger, run: dict[str, Any]
) -> Scan:
    """A complete ledger as the scan that a user gets."""
    modules, failures = [*ledger.modules.values()], [*plan.refused, *ledger.failures.values()]
    modules += [copied(ledger.modules[found], copy) for copy, found in plan.copies if found in ledger.modules]
    failures += [copied(ledger.failures[found], copy) for copy, found in plan.copies if found in ledger.failures]
    scan = Scan(
        model=checkpoint.name,
        criterion=options.criterion,
        modules=tuple(sorted(modules, key=lambda module: natural_key(module.name))),
        failures=tuple(sorted(failures, key=lambda failure: natural_key(failure.name))),
        ties=plan.ties,
        skipped=plan.skipped,
        provenance=options.provenance(checkpoint, plan, ledger.settings or [options.settings(run["threads"])]),
        run={
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **ledger.run_facts(),
            **run,
        },
    )
    if options.decided_percent is None:
        return scan
    return refine_cuts(scan, plan, options.criterion, options.decided_percent, options.stream)
