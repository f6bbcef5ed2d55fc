"""What a scan reads and what it leaves out, decided from the headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spectrum_fast.checkpoint import Checkpoint, TensorRef
from spectrum_fast.checkpoint.dtypes import decodable, require_decodable
from spectrum_fast.checkpoint.naming import is_buffer, module_name
from spectrum_fast.checkpoint.quantised import QuantisedTensors, quantised_companions
from spectrum_fast.errors import UnsupportedDtypeError, UsageError
from spectrum_fast.scoring.records import ScanFailure, SkippedTensor
from spectrum_fast.selection.patterns import match_patterns


@dataclass(frozen=True)
class ScanPlan:
    """Every tensor of a checkpoint, in exactly one place.

    Attributes:
        refs: tensors to read and score, in file order.
        refused: tensors that hold a weight in a form that is not decoded; they become failures of the scan.
        skipped: tensors left out on purpose, with the reason.
        ties: duplicate module -> module that is scored for both.
        total_bytes: bytes of ``refs``.
    """

    refs: tuple[TensorRef, ...]
    refused: tuple[ScanFailure, ...]
    skipped: tuple[SkippedTensor, ...]
    ties: Mapping[str, str]
    total_bytes: int


def plan_scan(
    checkpoint: Checkpoint,
    ties: Mapping[str, str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_norms: bool = False,
) -> ScanPlan:
    """Sort the tensors of a checkpoint into those to score, to refuse and to leave out.

    Args:
        checkpoint: the opened checkpoint.
        ties: parameter name of each duplicate -> parameter name of its original.
        include: patterns of module names; empty means all.
        exclude: patterns of module names.
        include_norms: score 1-D tensors too.

    Raises:
        UsageError: nothing is left to score.
        SelectionError: a pattern matches no tensor.
    """
    names = [module_name(ref.name) for ref in checkpoint.tensors]
    wanted = match_patterns(include, names, "--include") if include else set(names)
    wanted -= match_patterns(exclude, names, "--exclude") if exclude else set()
    quantised = quantised_companions(checkpoint.tensors)
    refs: list[TensorRef] = []
    refused: list[ScanFailure] = []
    skipped: list[SkippedTensor] = []
    tied: dict[str, str] = {}
    for ref, name in zip(checkpoint.tensors, names, strict=True):
        reason = (
            "left out by --include/--exclude" if name not in wanted else _skip_reason(ref, quantised, include_norms)
        )
        if reason is not None:
            skipped.append(SkippedTensor(name, reason))
            continue
        problem = _refusal(ref, quantised)
        if problem is not None:
            refused.append(
                ScanFailure(name=name, kind="unsupported", message=problem, shape=ref.shape, dtype=ref.dtype)
            )
        elif ref.name in ties:
            tied[name] = module_name(ties[ref.name])
        else:
            refs.append(ref)
    if not refs and not refused:
        raise UsageError(
            f"{checkpoint.name}: none of its {len(names)} tensors is a weight matrix to score"
            + (" under the given --include/--exclude" if include or exclude else "")
        )
    return ScanPlan(tuple(refs), tuple(refused), tuple(skipped), tied, sum(ref.nbytes for ref in refs))


def _skip_reason(ref: TensorRef, quantised: QuantisedTensors, include_norms: bool) -> str | None:
    """Why a tensor is no weight matrix, or None if it is one."""
    if ref.name in quantised.companions:
        return f"belongs to {quantised.companions[ref.name]}"
    if is_buffer(ref.name):
        return "a buffer, no weight"
    dimensions = len(ref.shape)
    if ref.element_count == 0:
        return f"empty, shape {ref.shape}"
    if dimensions == 0:
        return "a scalar"
    if dimensions == 1 and ref.name not in quantised.packed:
        if not decodable(ref.dtype):
            return f"1-D {ref.dtype}"
        return None if include_norms and ref.name.endswith("weight") else "1-D (norm or bias)"
    if dimensions > 2 and "expert" not in ref.name:
        return f"{dimensions}-D (a convolution kernel or the like), no matrix"
    return None


def _refusal(ref: TensorRef, quantised: QuantisedTensors) -> str | None:
    """Why a weight cannot be scored as it is stored, or None if it can."""
    try:
        quantised.require_plain(ref)
        require_decodable(ref)
    except UnsupportedDtypeError as error:
        return str(error)
    if len(ref.shape) > 2:
        return (
            f"tensor {ref.name} in {ref.file.name}: experts fused in {len(ref.shape)}-D, shape {ref.shape}, which this "
            "version does not split; expected one 2-D weight per expert"
        )
    return None
