"""One weight to its line in a scan: a score, or a failure that says why there is none."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch

from spectrum_fast.block_matrix import BlockMatrix
from spectrum_fast.errors import SpectrumFastError, TensorError, UnsupportedDtypeError
from spectrum_fast.factored_matrix import FactoredMatrix
from spectrum_fast.measure.ops.decode import decode_weight
from spectrum_fast.measure.scoring.measure import score_weight
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.measure.spectra.record import Spectrum
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.stream import LoadedWeight
from spectrum_fast.scanning.combination import SubspaceOverlap, overlap_with_base
from spectrum_fast.scanning.memory import is_out_of_memory

_Found = TypeVar("_Found", ModuleScore, ScanFailure)

Compute: TypeAlias = Callable[[torch.Tensor | BlockMatrix | FactoredMatrix], Spectrum]
"""From a matrix, whole, in blocks or as factors, to its spectrum."""

Record: TypeAlias = ModuleScore | ScanFailure

_PACKAGE = Path(__file__).parents[1]
_WORDS = 200
"""Characters of an unforeseen error's own words, at most: libraries put whole stacks of calls into theirs."""


@dataclass(frozen=True)
class ModuleResult:
    """What one module came to, and the time it took.

    Attributes:
        record: its score, or its failure.
        read_seconds: spent reading it, by the reading side.
        wait_seconds: spent waiting for it, by the scoring side.
        compute_seconds: spent decoding and scoring it.
    """

    record: Record
    read_seconds: float = 0.0
    wait_seconds: float = 0.0
    compute_seconds: float = 0.0


def score_loaded(loaded: LoadedWeight, compute: Compute) -> Record:
    """Decode and score one weight; what cannot be scored becomes a failure record, never a number."""

    def score(digest: str) -> Record:
        weight = decode_weight(loaded.plan, loaded.main, loaded.companions)
        shape, found, overlap = tuple(weight.shape), compute(weight), overlap_with_base(loaded)
        return record_of(loaded.plan, shape, found, overlap, digest)

    return attempt(loaded.plan, loaded.digest, score)


def attempt(plan: WeightPlan, digest: str, make: Callable[[str], Record]) -> Record:
    """What ``make`` returns for a weight; the failure of this weight alone, if it raises what is no error of the whole.

    Args:
        plan: the weight.
        digest: of its stored bytes; empty where not known.
        make: gives its record, which need not hold the digest.

    Raises:
        Exception: one that ends the scan (:func:`ends_scan`).
    """
    try:
        record = make(digest)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other tensors have nothing to do with it
        record = failure_of(plan, error)
    return record if record.digest else replace(record, digest=digest or None)


def record_of(
    plan: WeightPlan,
    shape: tuple[int, ...],
    found: Spectrum | Exception,
    overlap: SubspaceOverlap | None = None,
    digest: str = "",
) -> Record:
    """The score of a weight from its spectrum; a failure where the score cannot be told from rounding.

    Args:
        plan: the weight.
        shape: as it was scored.
        found: its spectrum, or why there is none.
        overlap: of a difference with its base, where that was asked for.
        digest: of its stored bytes; empty where not known, and no part of a failure.
    """
    if isinstance(found, Exception):
        return failure_of(plan, found)
    if math.isfinite(found.error_bound):
        score = score_weight(plan, shape, found, digest)
        return score if overlap is None else replace(score, **overlap.angles(found.mp_rank))
    return failed(
        plan,
        "accuracy",
        f"the score cannot be told from rounding ({found.method}: {found.reason}); the matrix is too near to "
        "rank-deficient for its noise sum to be known",
    )


def ends_scan(error: Exception) -> bool:
    """Whether an error concerns the whole scan (storage, device, usage) and not only the tensor in work."""
    if isinstance(error, SpectrumFastError):
        return not isinstance(error, (TensorError, UnsupportedDtypeError))
    return isinstance(error, (OSError, torch.AcceleratorError)) and not is_out_of_memory(error)


def copied(record: _Found, plan: WeightPlan) -> _Found:
    """What was found for a weight, as found for another one with the same bytes."""
    said = f"the same bytes as {record.name}, read once"
    if isinstance(record, ScanFailure):
        return replace(record, name=plan.name, message=f"{record.message} ({said})")
    note = f"{record.note}; {said}" if record.note else said
    return replace(record, name=plan.name, type=module_type(plan.name), parameter=plan.parameter, note=note)


def failure_of(plan: WeightPlan, error: Exception) -> ScanFailure:
    """The failure of a weight from what was raised on the way to its score.

    Raises:
        Exception: ``error`` itself, if it ends the scan.
    """
    if ends_scan(error):
        raise error
    if isinstance(error, UnsupportedDtypeError):
        return failed(plan, "unsupported", str(error))
    if isinstance(error, TensorError):
        return failed(plan, "values", str(error))
    if isinstance(error, torch.linalg.LinAlgError):  # pyright: ignore[reportPrivateImportUsage]
        return failed(plan, "numeric", f"LAPACK gave up: {error}; try another method")
    if is_out_of_memory(error):
        return failed(
            plan,
            "memory",
            "there was no memory left to score it; free some, or take a smaller buffer (--buffer-gib) or fewer threads "
            "(--threads): the same command then goes on from the journal, if there is one, and tries it again",
        )
    return _unforeseen_failure(plan, error)


def _unforeseen_failure(plan: WeightPlan, error: Exception) -> ScanFailure:
    """The failure of a weight by a fault of this program, with what its authors need to find it."""
    lines = str(error).strip().splitlines()
    words = f"{type(error).__name__}{': ' + lines[0][:_WORDS] if lines else ''}"
    own = [
        f"{path.relative_to(_PACKAGE).as_posix()}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if (path := Path(frame.filename)).is_relative_to(_PACKAGE)
    ]
    message = (
        f"{words}{' at ' + own[-1] if own else ''}; a fault of spectrum_fast: please report it with this line and the "
        "traceback in the scan's journal"
    )
    return replace(failed(plan, "error", message), traceback="".join(traceback.format_exception(error)))


def failed(plan: WeightPlan, kind: str, message: str) -> ScanFailure:
    """The failure of a weight, which says what it is stored as and where."""
    ref = plan.main
    return ScanFailure(
        name=plan.name,
        kind=kind,
        message=f"{ref.name} in {ref.file.name}: {message}",
        shape=ref.shape,
        dtype=ref.dtype,
        parameter=plan.parameter if plan.parts is not None else None,
    )
