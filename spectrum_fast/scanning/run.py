"""Scan a checkpoint: read each tensor once, score it, forget it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial

import torch

from spectrum_fast.checkpoint import Checkpoint, TensorRef, open_checkpoint
from spectrum_fast.checkpoint.duplicates import find_ties, tied_head_note
from spectrum_fast.checkpoint.naming import module_name, natural_key
from spectrum_fast.errors import BackendUnavailableError, TensorError, UnsupportedDtypeError, UsageError
from spectrum_fast.ops.dispatch import choose_backend, set_threads
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scoring.criteria import find_criterion
from spectrum_fast.scoring.measure import score_module
from spectrum_fast.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.selection.scan_result import Scan
from spectrum_fast.spectra.engine import DEFAULT_TOLERANCE, compute_spectrum
from spectrum_fast.spectra.record import Spectrum
from spectrum_fast.stream import LoadedTensor, stream_tensors
from spectrum_fast.version import __version__

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan is; sent after every tensor.

    Attributes:
        name: module just finished; empty in the first message.
        done: modules finished.
        total: modules to do.
        done_bytes: bytes of those finished.
        total_bytes: bytes to read in all.
        elapsed_seconds: since the scan began.
    """

    name: str
    done: int
    total: int
    done_bytes: int
    total_bytes: int
    elapsed_seconds: float


@dataclass
class _Outcome:
    """What a scan has found so far."""

    modules: list[ModuleScore] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    read_seconds: float = 0.0
    compute_seconds: float = 0.0


def scan(
    source: str | os.PathLike[str],
    *,
    criterion: str = "spectrum",
    method: str = "auto",
    precision: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
    device: str = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_norms: bool = False,
    threads: int | None = None,
    progress: Callable[[ScanProgress], None] | None = None,
) -> Scan:
    """Score every weight matrix of a checkpoint.

    Tensors are read one at a time in file order; memory holds the matrix in work and the next one being read, never
    the model. No model code is run and nothing is unpickled.

    Args:
        source: a checkpoint directory, one ``.safetensors`` file, or a hub id ``org/name``.
        criterion: ``spectrum`` (the published rule) or ``mp``.
        method: ``auto``, ``band`` or ``svd``; see :func:`spectrum_fast.spectrum`.
        precision: ``auto``, ``float32`` or ``float64``.
        tolerance: relative accuracy wanted of every score.
        device: ``auto`` or ``cpu``; ``cuda`` is refused by this version.
        include: shell-style patterns (or ``re:...``) of module names to scan; empty means all.
        exclude: patterns of module names to leave out.
        include_norms: score 1-D tensors too, as one row each, like the reference implementation.
        threads: CPU threads; None leaves torch's setting.
        progress: called after every tensor.

    Returns:
        The scan: one score or one failure for every tensor that is a weight matrix, and what was skipped and why.

    Raises:
        CheckpointError: the checkpoint cannot be opened, or changed while being read.
        UsageError: an option is out of range, or a pattern matches nothing.
        BackendUnavailableError: the device was asked for by name and cannot be used.
    """
    rule = find_criterion(criterion)
    device = _choose_device(device)
    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads must be at least 1, found {threads}")
        set_threads(threads)
    started = time.perf_counter()
    checkpoint = open_checkpoint(source)
    ties = find_ties(checkpoint, min_dimensions=1 if include_norms else 2)
    plan = plan_scan(checkpoint, ties, include=include, exclude=exclude, include_norms=include_norms)
    outcome = _Outcome(failures=list(plan.refused))
    compute = partial(compute_spectrum, criterion=rule, method=method, precision=precision, tolerance=tolerance)
    done_bytes = 0
    report = progress or (lambda _: None)
    report(ScanProgress("", 0, len(plan.refs), 0, plan.total_bytes, 0.0))
    for loaded in stream_tensors(plan.refs):
        before = time.perf_counter()
        outcome.read_seconds += loaded.read_seconds
        _score_into(outcome, loaded, compute)
        now = time.perf_counter()
        outcome.compute_seconds += now - before
        done_bytes += loaded.ref.nbytes
        done = len(outcome.modules) + len(outcome.failures) - len(plan.refused)
        report(
            ScanProgress(
                module_name(loaded.ref.name), done, len(plan.refs), done_bytes, plan.total_bytes, now - started
            )
        )
    elapsed = time.perf_counter() - started
    return Scan(
        model=checkpoint.name,
        criterion=rule.name,
        modules=tuple(sorted(outcome.modules, key=lambda module: natural_key(module.name))),
        failures=tuple(outcome.failures),
        ties=plan.ties,
        skipped=plan.skipped,
        provenance=_provenance(checkpoint, plan, outcome, elapsed, method, precision, tolerance, device),
    )


def _score_into(outcome: _Outcome, loaded: LoadedTensor, compute: Callable[[torch.Tensor], Spectrum]) -> None:
    """Score one tensor; what cannot be scored becomes a failure record, never a number."""
    ref = loaded.ref
    try:
        found = compute(loaded.tensor)
    except (TensorError, UnsupportedDtypeError) as error:
        kind = "unsupported" if isinstance(error, UnsupportedDtypeError) else "values"
        outcome.failures.append(_failure(ref, kind, str(error)))
        return
    if not math.isfinite(found.error_bound):
        outcome.failures.append(
            _failure(
                ref,
                "accuracy",
                f"the score cannot be told from rounding ({found.method}: {found.reason}); the matrix is too near to "
                "rank-deficient for its noise sum to be known",
            )
        )
        return
    outcome.modules.append(score_module(ref, found))


def _failure(ref: TensorRef, kind: str, message: str) -> ScanFailure:
    return ScanFailure(
        name=module_name(ref.name),
        kind=kind,
        message=f"{ref.name} in {ref.file.name}: {message}",
        shape=ref.shape,
        dtype=ref.dtype,
    )


def _choose_device(device: str) -> str:
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}: expected one of {', '.join(DEVICES)}")
    if device == "cuda":
        raise BackendUnavailableError(
            "device 'cuda': this version has no GPU kernels, only the CPU engine; use --device cpu (or auto)"
        )
    return "cpu"


def _provenance(
    checkpoint: Checkpoint,
    plan: ScanPlan,
    outcome: _Outcome,
    elapsed: float,
    method: str,
    precision: str,
    tolerance: float,
    device: str,
) -> dict[str, object]:
    head_note = tied_head_note(checkpoint.tensors, checkpoint.config)
    return {
        "tool": "spectrum_fast",
        "version": __version__,
        "torch": torch.__version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": checkpoint.source,
        "fingerprint": checkpoint.fingerprint,
        "notes": [*checkpoint.notes, *([head_note] if head_note else [])],
        "method": method,
        "precision": precision,
        "tolerance": tolerance,
        "device": device,
        "backend": choose_backend(device),
        "threads": torch.get_num_threads(),
        "bytes_read": plan.total_bytes,
        "elapsed_seconds": round(elapsed, 3),
        "read_seconds": round(outcome.read_seconds, 3),
        "compute_seconds": round(outcome.compute_seconds, 3),
    }
