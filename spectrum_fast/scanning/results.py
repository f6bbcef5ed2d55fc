"""One weight to its line in a scan: a score, or a failure that says why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from spectrum_fast.errors import TensorError, UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.scoring.measure import score_weight
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.measure.spectra.record import Spectrum
from spectrum_fast.read.checkpoint.weight_plan import WeightPlan
from spectrum_fast.read.stream import BlockMatrix, LoadedWeight

Compute: TypeAlias = Callable[[torch.Tensor | BlockMatrix], Spectrum]
"""From a matrix, whole or in blocks, to its spectrum."""


@dataclass(frozen=True)
class ModuleResult:
    """What one module came to, and the time it took.

    Attributes:
        record: its score, or its failure.
        read_seconds: spent reading it, by the reading side.
        wait_seconds: spent waiting for it, by the scoring side.
        compute_seconds: spent decoding and scoring it.
    """

    record: ModuleScore | ScanFailure
    read_seconds: float
    wait_seconds: float
    compute_seconds: float


def score_loaded(loaded: LoadedWeight, compute: Compute) -> ModuleScore | ScanFailure:
    """Decode and score one weight; what cannot be scored becomes a failure record, never a number."""
    plan = loaded.plan
    try:
        weight = decode_weight(plan, loaded.main, loaded.companions)
        return record_of(plan, tuple(weight.shape), compute(weight))
    except (TensorError, UnsupportedDtypeError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        return failure_of(plan, error)


def record_of(plan: WeightPlan, shape: tuple[int, ...], found: Spectrum) -> ModuleScore | ScanFailure:
    """The score of a weight from its spectrum; a failure where the score cannot be told from rounding."""
    if math.isfinite(found.error_bound):
        return score_weight(plan, shape, found)
    return _failure(plan, "accuracy", _unknown_score(found))


def failure_of(plan: WeightPlan, error: Exception) -> ScanFailure:
    """The failure of a weight from what was raised on the way to its spectrum."""
    if isinstance(error, UnsupportedDtypeError):
        return _failure(plan, "unsupported", str(error))
    if isinstance(error, TensorError):
        return _failure(plan, "values", str(error))
    return _failure(plan, "numeric", f"LAPACK gave up: {error}; try another method")


def _unknown_score(found: Spectrum) -> str:
    if found.method == "rsvd":
        return f"the estimate cannot tell its noise sum ({found.reason}); use another method"
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
