"""What a scan reads and what it leaves out, decided before the first tensor is scored.

Headers decide, but for duplicates: those show only in the bytes (:mod:`spectrum_fast.checkpoint.duplicates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spectrum_fast.checkpoint import Checkpoint, TensorRef
from spectrum_fast.checkpoint.dtypes import decodable, require_decodable
from spectrum_fast.checkpoint.duplicates import find_ties
from spectrum_fast.checkpoint.naming import is_buffer, module_name, natural_key
from spectrum_fast.checkpoint.quantised import QuantisedTensors, quantised_companions
from spectrum_fast.errors import CheckpointError, UnsupportedDtypeError, UsageError
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
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_norms: bool = False,
) -> ScanPlan:
    """Sort the tensors of a checkpoint into those to score, to refuse and to leave out.

    Duplicates are looked for among the matrices to score only: a copy of an excluded tensor is scored itself. Equal 1-D
    tensors are no duplicates, since untrained norms are all ones in every layer.

    Args:
        checkpoint: the opened checkpoint.
        include: patterns of module names; empty means all.
        exclude: patterns of module names.
        include_norms: score 1-D weights too.

    Raises:
        UsageError: nothing is left to score, or a pattern is malformed.
        SelectionError: a pattern matches no tensor.
        CheckpointError: two tensors stand for one module, or a file changed.
    """
    names = [module_name(ref.name) for ref in checkpoint.tensors]
    wanted = match_patterns(include, names, "include") if include else set(names)
    wanted -= match_patterns(exclude, names, "exclude") if exclude else set()
    quantised = quantised_companions(checkpoint.tensors)
    refs: list[TensorRef] = []
    refused: list[ScanFailure] = []
    skipped: list[SkippedTensor] = []
    for ref, name in zip(checkpoint.tensors, names, strict=True):
        reason = (
            _skip_reason(ref, quantised, include_norms)
            if name in wanted
            else "left out by the include/exclude patterns"
        )
        if reason is not None:
            skipped.append(SkippedTensor(name, reason))
            continue
        problem = _refusal(ref, quantised)
        if problem is None:
            refs.append(ref)
        else:
            refused.append(
                ScanFailure(name=name, kind="unsupported", message=problem, shape=ref.shape, dtype=ref.dtype)
            )
    if not refs and not refused:
        raise UsageError(
            f"{checkpoint.name}: expected a weight matrix to score, found none among {len(names)} tensors"
            + (" under the given include/exclude patterns; widen them" if include or exclude else "")
        )
    _require_one_tensor_a_module(checkpoint, [ref.name for ref in refs] + [failure.name for failure in refused])
    ties = find_ties(replace(checkpoint, tensors=tuple(refs)))
    to_read = tuple(ref for ref in refs if ref.name not in ties)
    return ScanPlan(
        refs=to_read,
        refused=tuple(refused),
        skipped=tuple(skipped),
        ties={module_name(copy): module_name(ties[copy]) for copy in sorted(ties, key=lambda copy: natural_key(copy))},
        total_bytes=sum(ref.nbytes for ref in to_read),
    )


def _require_one_tensor_a_module(checkpoint: Checkpoint, names: Sequence[str]) -> None:
    """``x`` and ``x.weight`` would be one module: say so before a long scan, not after it."""
    seen: set[str] = set()
    for name in map(module_name, names):
        if name in seen:
            raise CheckpointError(
                f"{checkpoint.name}: expected one tensor for module {name!r}, found both {name!r} and "
                f"{name + '.weight'!r}; exclude the module"
            )
        seen.add(name)


def _skip_reason(ref: TensorRef, quantised: QuantisedTensors, include_norms: bool) -> str | None:
    """Why a tensor is no weight matrix, or None if it is one."""
    if ref.name in quantised.companions:
        return f"belongs to {quantised.companions[ref.name]}"
    if is_buffer(ref.name):
        return "buffer"
    dimensions = len(ref.shape)
    if ref.element_count == 0:
        return f"empty, shape {ref.shape}"
    if dimensions == 0:
        return "scalar"
    if ref.name in quantised.packed:
        return None
    if ref.name.endswith("bias") and dimensions > 1:
        return f"{dimensions}-D bias"
    if dimensions == 1:
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
