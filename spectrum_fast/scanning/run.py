"""Scan a checkpoint: read each tensor once, score it, forget it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from torch import nn

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.options import takes_options
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.read.checkpoint.naming import natural_key
from spectrum_fast.scanning.content import begin_journal
from spectrum_fast.scanning.journal import Journal, journal_path
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.live import plan_live, score_live
from spectrum_fast.scanning.memory import explain_memory
from spectrum_fast.scanning.on_ray import score_on_ray
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.provenance import scan_provenance, scan_settings
from spectrum_fast.scanning.refine import refine_cuts
from spectrum_fast.scanning.results import copied
from spectrum_fast.scanning.scoring import make_scorer, open_and_plan, score_plan
from spectrum_fast.scanning.step import ScanProgress, notebook_progress


@takes_options(ScanOptions)
def scan(source: str | os.PathLike[str] | nn.Module, options: ScanOptions) -> Scan:
    """Score every weight matrix of a checkpoint, or of a live model.

    Tensors are read in file order into a buffer of fixed size, while the ones before are scored; memory never holds
    the model. No model code is run and nothing is unpickled.

    With ``out`` (or ``journal``) an interrupted scan loses nothing: the same call goes on where it was, and the scan it
    ends with is, byte for byte, that of a scan that was never interrupted.

    Args:
        source: a checkpoint directory, one ``.safetensors`` file, a hub id ``org/name`` (of either, a LoRA adapter
            counts as the difference that it makes), a folder or file behind ``https://``, ``s3://`` or ``gs://``; or a
            live ``torch.nn.Module``, scanned in place and left as it is (:mod:`spectrum_fast.scanning.live`).
        options: keywords, each of :class:`spectrum_fast.scanning.options.ScanOptions`.

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
    path = options.journal
    if isinstance(source, nn.Module):
        if path is not None or options.restart:
            raise UsageError("journal: expected none for a live model, whose values change; leave it out")
        for name in ("ray", "minus", "plus"):
            if getattr(options, name) is not None:
                raise UsageError(f"{name}: expected a checkpoint in files, found a live model; leave it out")
    elif path is None and options.out is not None:
        path = journal_path(options.out)
    if options.restart and path is None:
        raise UsageError("restart: expected a journal to throw away, found neither 'out' nor 'journal'; pass one")
    with nullcontext() if path is None else Journal(path, restart=options.restart) as opened:
        result = run_scan(source, options, journal=opened, progress=options.progress or notebook_progress())
        if options.out is not None:
            result.save(os.fspath(options.out))
            if opened is not None:
                opened.finish()
    return result


def run_scan(
    source: str | os.PathLike[str] | nn.Module,
    options: ScanOptions,
    *,
    journal: Journal | None = None,
    progress: Callable[[ScanProgress], None] | None = None,
    planned: Callable[[ScanPlan], None] | None = None,
) -> Scan:
    """Scan with a journal that is open; :func:`scan` says the rest.

    Args:
        source: the checkpoint, or a live model.
        options: what to score and how.
        journal: entered, not begun. The caller removes it when the result is safe.
        progress: called at the beginning and after every tensor.
        planned: told what will be scored, before anything is.
    """
    started = time.perf_counter()
    live = None
    if isinstance(source, nn.Module):
        live, plan = plan_live(source, options)
        checkpoint = live.checkpoint
    else:
        checkpoint, plan = open_and_plan(source, options)
    if planned is not None:
        planned(plan)
    if journal is not None:
        begin_journal(journal, options, checkpoint, plan)
    ledger = Ledger(plan, journal, progress, started)
    with explain_memory(), thread_count(options.threads) as threads:
        facts: Mapping[str, Any] = {}
        if live is not None:
            settings = scan_settings(options, threads)
            scorer = make_scorer(options, plan.weights)
            score_live(live, plan, scorer, options.device, lambda result: ledger.record(result, settings))
            options = replace(options, top_percent=None)  # there is no file to read a doubtful weight from again
        elif options.ray is None or isinstance(source, nn.Module):
            facts = score_plan(plan, options, ledger)
        else:
            score_on_ray(source, checkpoint, plan, options, ledger)
            options = replace(options, device="cpu")  # what is left to do is done here
        facts = {"processes": ledger.processes, "threads": threads, **facts}
        return assemble_scan(checkpoint, plan, options, ledger, facts)


def assemble_scan(
    checkpoint: Checkpoint, plan: ScanPlan, options: ScanOptions, ledger: Ledger, run: dict[str, Any]
) -> Scan:
    """A complete ledger as the scan that a user gets.

    Raises:
        CheckpointError: the checkpoint is no longer the one that was opened.
    """
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
        provenance=scan_provenance(
            options, checkpoint, plan, ledger.settings or [scan_settings(options, run["threads"])]
        ),
        run={
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **ledger.run_facts(),
            **run,
        },
    )
    scan = refine_cuts(scan, plan, options)
    checkpoint.require_unchanged()
    return scan
