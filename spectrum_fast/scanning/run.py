"""Scan a checkpoint: read each tensor once, score it, forget it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import cast

import torch

from spectrum_fast.checkpoint import open_checkpoint
from spectrum_fast.checkpoint.naming import natural_key
from spectrum_fast.checkpoint.weight_plan import WeightPlan
from spectrum_fast.errors import BackendUnavailableError, TensorError, UnsupportedDtypeError, UsageError
from spectrum_fast.ops.decode import decode_weight
from spectrum_fast.ops.dispatch import choose_backend, set_threads
from spectrum_fast.scanning.plan import ScanPlan, plan_scan
from spectrum_fast.scoring.criteria import find_criterion
from spectrum_fast.scoring.measure import score_weight
from spectrum_fast.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.selection.scan_result import Scan
from spectrum_fast.spectra.engine import DEFAULT_TOLERANCE, METHODS, PRECISIONS, compute_spectrum
from spectrum_fast.spectra.record import Spectrum
from spectrum_fast.stream import LoadedWeight, stream_weights
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
        threads: CPU threads of this scan; None leaves torch's setting.
        progress: called after every tensor.

    Returns:
        The scan: one score or one failure for every tensor that is a weight matrix, and what was skipped and why.

    Raises:
        CheckpointError: the checkpoint cannot be opened, or changed while being read.
        UsageError: an option is out of range, or nothing is left to score.
        SelectionError: a pattern matches no tensor.
        BackendUnavailableError: the device was asked for by name and cannot be used.
    """
    rule = find_criterion(criterion)
    _check_choice("method", method, METHODS)
    _check_choice("precision", precision, PRECISIONS)
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance: expected a number in (0, 1), found {tolerance!r}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads: expected at least 1, found {threads}")
    device = _choose_device(device)
    started = time.perf_counter()
    checkpoint = open_checkpoint(source)
    plan = plan_scan(checkpoint, include=include, exclude=exclude, include_norms=include_norms)
    compute = partial(compute_spectrum, criterion=rule, method=method, precision=precision, tolerance=tolerance)
    with _thread_count(threads) as threads_used:
        outcome = _score_all(plan, compute, progress or (lambda _: None), started)
    return Scan(
        model=checkpoint.name,
        criterion=rule.name,
        modules=tuple(sorted(outcome.modules, key=lambda module: natural_key(module.name))),
        failures=tuple(sorted((*plan.refused, *outcome.failures), key=lambda failure: natural_key(failure.name))),
        ties=plan.ties,
        skipped=plan.skipped,
        provenance={
            "tool": "spectrum_fast",
            "version": __version__,
            "torch": torch.__version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "checkpoint": checkpoint.source,
            "fingerprint": checkpoint.fingerprint,
            "notes": list(checkpoint.notes),
            "method": method,
            "precision": precision,
            "tolerance": tolerance,
            "device": device,
            "backend": choose_backend("gram", device),
            "threads": threads_used,
            "bytes_read": plan.total_bytes,
            "elapsed_seconds": round(time.perf_counter() - started, 3),
            "read_seconds": round(outcome.read_seconds, 3),
            "compute_seconds": round(outcome.compute_seconds, 3),
        },
    )


def _score_all(
    plan: ScanPlan,
    compute: Callable[[torch.Tensor], Spectrum],
    report: Callable[[ScanProgress], None],
    started: float,
) -> _Outcome:
    """Read, score and forget every tensor of the plan, in file order."""
    outcome = _Outcome()
    total, done, done_bytes = len(plan.weights), 0, 0
    report(ScanProgress("", 0, total, 0, plan.total_bytes, time.perf_counter() - started))
    # No enumerate: it would keep the last tensor alive while the next one is read.
    with closing(cast("Generator[LoadedWeight, None, None]", stream_weights(plan.weights))) as stream:
        for loaded in stream:
            before = time.perf_counter()
            _score_into(outcome, loaded, compute)
            now = time.perf_counter()
            outcome.read_seconds += loaded.read_seconds
            outcome.compute_seconds += now - before
            done += 1
            done_bytes += loaded.plan.nbytes
            name = loaded.plan.name
            del loaded  # nor must this name
            report(ScanProgress(name, done, total, done_bytes, plan.total_bytes, now - started))
    return outcome


def _score_into(outcome: _Outcome, loaded: LoadedWeight, compute: Callable[[torch.Tensor], Spectrum]) -> None:
    """Decode and score one weight; what cannot be scored becomes a failure record, never a number."""
    plan = loaded.plan
    try:
        weight = decode_weight(plan, loaded.main, loaded.companions)
        found = compute(weight)
        if math.isfinite(found.error_bound):
            outcome.modules.append(score_weight(plan, tuple(weight.shape), found))
        else:
            outcome.failures.append(_failure(plan, "accuracy", _unknown_score(found)))
    except UnsupportedDtypeError as error:
        outcome.failures.append(_failure(plan, "unsupported", str(error)))
    except TensorError as error:
        outcome.failures.append(_failure(plan, "values", str(error)))
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        outcome.failures.append(_failure(plan, "numeric", f"LAPACK gave up: {error}; try another method"))


def _unknown_score(found: Spectrum) -> str:
    return (
        f"the score cannot be told from rounding ({found.method}: {found.reason}); the matrix is too near to "
        "rank-deficient for its noise sum to be known"
    )


def _failure(plan: WeightPlan, kind: str, message: str) -> ScanFailure:
    ref = plan.main
    return ScanFailure(
        name=plan.name,
        kind=kind,
        message=f"{ref.name} in {ref.file.name}: {message}",
        shape=ref.shape,
        dtype=ref.dtype,
        parameter=plan.parameter if plan.parts is not None else None,
    )


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"unknown {option} {value!r}: expected one of {', '.join(choices)}")


def _choose_device(device: str) -> str:
    _check_choice("device", device, DEVICES)
    if device == "cuda":
        found = "a GPU, but this version has" if torch.cuda.is_available() else "no usable GPU, and this version has"
        raise BackendUnavailableError(
            f"device 'cuda': expected a GPU and kernels for it, found {found} only the CPU engine; "
            "use --device cpu, or leave the option out"
        )
    return "cpu"


@contextmanager
def _thread_count(threads: int | None) -> Iterator[int]:
    """Compute on this many CPU threads, and on as many as before afterwards; gives the number in use."""
    if threads is None:
        yield torch.get_num_threads()
        return
    before = torch.get_num_threads()
    set_threads(threads)
    try:
        yield threads
    finally:
        set_threads(before)
