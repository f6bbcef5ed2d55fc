"""What a scan reads and what it leaves out, decided before the first tensor is scored.

Headers decide, but for duplicates: those show only in the bytes (:mod:`spectrum_fast.read.checkpoint.duplicates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from spectrum_fast.choose.selection.patterns import match_patterns
from spectrum_fast.errors import CheckpointError, UnsupportedDtypeError, UsageError
from spectrum_fast.measure.scoring.records import ScanFailure, SkippedTensor
from spectrum_fast.read.checkpoint import Checkpoint, TensorRef
from spectrum_fast.read.checkpoint.dtypes import decodable
from spectrum_fast.read.checkpoint.duplicates import find_copies, tied_names
from spectrum_fast.read.checkpoint.naming import is_buffer, is_fused_experts, is_no_matrix, module_name, natural_key
from spectrum_fast.read.formats.config import QuantisationConfig, read_quantisation_config
from spectrum_fast.read.formats.planning import plan_packed, plan_plain
from spectrum_fast.read.formats.projections import split_fused
from spectrum_fast.read.formats.recognition import QuantisedTensors, find_packed
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.scanning.results import failure_of


@dataclass(frozen=True)
class ScanPlan:
    """Every tensor of a checkpoint, in exactly one place.

    Attributes:
        weights: matrices to read and score, in file order; a tensor that fuses experts gives one for each of them.
        refused: tensors that hold a weight in a form that is not decoded; they become failures of the scan.
        skipped: tensors left out on purpose, with the reason.
        ties: module -> module that is scored for both, because they are one parameter of the model.
        copies: weights that are not read, each with the name of the module whose bytes are equal and whose score it
            takes.
    """

    weights: tuple[WeightPlan, ...]
    refused: tuple[ScanFailure, ...]
    skipped: tuple[SkippedTensor, ...]
    ties: Mapping[str, str]
    copies: tuple[tuple[WeightPlan, str], ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of ``weights``, scales and other companions included."""
        return sum(weight.nbytes for weight in self.weights)


MAX_MATRICES = 1 << 18
"""Most matrices in one scan; the largest published models hold 140,000."""

_BY_PATTERN = "left out by the include/exclude patterns"


_Found: TypeAlias = str | ScanFailure | tuple[WeightPlan, ...]
"""What comes of a tensor: a reason to leave it out, a refusal, or the matrices in it."""


def plan_scan(
    checkpoint: Checkpoint,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_norms: bool = False,
    known_ties: Mapping[str, str] | None = None,
    split: bool = False,
) -> ScanPlan:
    """Sort the tensors of a checkpoint into those to score, to refuse and to leave out.

    Duplicates are looked for among the matrices to score only: a copy of an excluded tensor is scored itself. Equal 1-D
    tensors are no duplicates, since untrained norms are all ones in every layer.

    Args:
        checkpoint: the opened checkpoint.
        include: patterns of module names; empty means all.
        exclude: patterns of module names.
        include_norms: score 1-D weights too.
        split: score the projections that a weight fuses (``qkv_proj``) one by one.
        known_ties: name of each tied tensor -> name of its original, where there are no files to compare bytes in.

    Raises:
        UsageError: nothing is left to score, or a pattern is malformed.
        SelectionError: a pattern matches no tensor.
        CheckpointError: two tensors stand for one module, or a file changed.
    """
    quantised = find_packed(checkpoint.tensors)
    config = read_quantisation_config(checkpoint.config)
    layout = (checkpoint.config or {}) if split else None
    found: list[tuple[str, _Found]] = []
    matrices = 0
    for ref in checkpoint.tensors:
        if not module_name(ref.name):
            raise CheckpointError(
                f"{ref.file}: expected a name for every tensor, found {shorten(ref.name)}; save the file with names"
            )
        entry = _look_at(ref, quantised, config, include_norms, layout)
        found.append((module_name(ref.name), entry))
        matrices += len(entry) if isinstance(entry, tuple) else 0
        if matrices > MAX_MATRICES:
            raise CheckpointError(
                f"{checkpoint.name}: expected at most {MAX_MATRICES} matrices in all, found more by tensor "
                f"{shorten(ref.name)}, which no published model comes near; scan its files one by one"
            )
    is_wanted = _pattern_test(found, include, exclude)
    weights: list[WeightPlan] = []
    refused: list[ScanFailure] = []
    skipped: list[SkippedTensor] = []
    for name, entry in found:
        plans = entry if isinstance(entry, tuple) else ()
        taken = [plan for plan in plans if is_wanted(name, module_name(plan.parameter), plan.name)]
        weights += taken
        if not taken and not is_wanted(name):
            skipped.append(SkippedTensor(name, _BY_PATTERN))
        elif isinstance(entry, str):
            skipped.append(SkippedTensor(name, entry))
        elif isinstance(entry, ScanFailure):
            refused.append(entry)
        else:
            names = {plan.name for plan in taken}
            skipped += [SkippedTensor(plan.name, _BY_PATTERN) for plan in plans if plan.name not in names]
    if not weights and not refused:
        raise UsageError(
            f"{checkpoint.name}: expected a weight matrix to score, found none among {len(checkpoint.tensors)} tensors"
            + (" under the given include/exclude patterns; widen them" if include or exclude else "")
        )
    _require_one_tensor_a_module(checkpoint, weights, refused)
    plain = [plan for plan in weights if plan.decoder is None and plan.expert is None and plan.part is None]
    names = {plan.main.name for plan in plain}
    if known_ties is None:
        equal = find_copies(replace(checkpoint, tensors=tuple(plan.main for plan in plain)))
        known_ties = tied_names(equal, checkpoint.config)
    else:
        equal = known_ties
    equal = {copy: original for copy, original in equal.items() if original in names}
    ties = {copy: original for copy, original in equal.items() if copy in known_ties}
    to_read = tuple(plan for plan in weights if plan.main.name not in equal)
    copies = [plan for plan in plain if plan.main.name in equal and plan.main.name not in ties]
    return ScanPlan(
        weights=to_read,
        refused=tuple(refused),
        skipped=tuple(skipped),
        ties={module_name(copy): module_name(ties[copy]) for copy in sorted(ties, key=lambda copy: natural_key(copy))},
        copies=tuple((plan, module_name(equal[plan.main.name])) for plan in copies),
    )


def _look_at(
    ref: TensorRef,
    quantised: QuantisedTensors,
    config: QuantisationConfig,
    include_norms: bool,
    layout: Mapping[str, Any] | None,
) -> _Found:
    """Decide from the header what a tensor is."""
    name, reason = module_name(ref.name), _skip_reason(ref, quantised, include_norms)
    if reason is None and config.adapter and ref.name not in quantised.packed:
        reason = "saved whole beside the adapter: no difference"
    if reason is not None:
        return reason
    packed = quantised.packed.get(ref.name)
    try:
        plans = plan_plain(ref) if packed is None else plan_packed(packed, config)
        if layout is not None and len(ref.shape) > 1:
            plans = tuple(part for plan in plans for part in split_fused(plan, layout))
        return plans
    except UnsupportedDtypeError as error:
        return ScanFailure(name=name, kind="unsupported", message=str(error), shape=ref.shape, dtype=ref.dtype)
    except Exception as error:  # noqa: BLE001 - a failure of this tensor alone, or raised again
        return failure_of(WeightPlan(name, ref.name, ref), error)


def _pattern_test(
    found: Sequence[tuple[str, _Found]], include: Sequence[str], exclude: Sequence[str]
) -> Callable[..., bool]:
    """A test whether something with these names is wanted: one of them is included, none excluded."""
    plans = [plan for _, entry in found if isinstance(entry, tuple) for plan in entry]
    aliases = [alias for plan in plans for alias in (module_name(plan.parameter), plan.name)]
    known = list(dict.fromkeys([name for name, _ in found] + aliases))
    included = match_patterns(include, known, "include") if include else set(known)
    excluded = match_patterns(exclude, known, "exclude") if exclude else set[str]()
    return lambda *aliases: not included.isdisjoint(aliases) and excluded.isdisjoint(aliases)


def _require_one_tensor_a_module(
    checkpoint: Checkpoint, weights: Sequence[WeightPlan], refused: Sequence[ScanFailure]
) -> None:
    """``x`` and ``x.weight`` would be one module: say so before a long scan, not after it."""
    seen: dict[str, str] = {}
    stored = [(plan.name, plan.main.name) for plan in weights]
    for module, tensor in [*stored, *((failure.name, failure.name) for failure in refused)]:
        if module in seen:
            raise CheckpointError(
                f"{checkpoint.name}: expected one tensor for module {module!r}, found both {seen[module]!r} and "
                f"{tensor!r}; exclude the module"
            )
        seen[module] = tensor


def _skip_reason(ref: TensorRef, quantised: QuantisedTensors, include_norms: bool) -> str | None:
    """Why a tensor is no weight matrix, or None if it is one."""
    if ref.name in quantised.companions:
        return f"belongs to {quantised.companions[ref.name]}"
    if is_buffer(ref.name):
        return "buffer"
    if is_no_matrix(ref.name):
        return "a table of rates or biases, which multiplies nothing"
    if ref.name in quantised.packed:
        return None
    dimensions = len(ref.shape)
    if ref.element_count == 0:
        return f"empty, shape {ref.shape}"
    if dimensions == 0:
        return "scalar"
    if ref.name.endswith("bias") and dimensions > 1:
        return f"{dimensions}-D bias"
    if dimensions == 1:
        if not decodable(ref.dtype):
            return f"1-D {ref.dtype}"
        return None if include_norms and ref.name.endswith("weight") else "1-D (norm or bias)"
    if dimensions > 2 and not is_fused_experts(ref.name):
        return f"{dimensions}-D (a convolution kernel or the like), no matrix"
    return None
