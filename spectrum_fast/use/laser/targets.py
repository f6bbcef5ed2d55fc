"""Which matrices are replaced, and by what rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spectrum_fast.choose.selection.export.low_ranks import module_rank
from spectrum_fast.choose.selection.options import RankOptions
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import CheckpointError, SelectionError, UsageError
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint import Checkpoint, TensorRef
from spectrum_fast.read.checkpoint.dtypes import decodable
from spectrum_fast.read.checkpoint.naming import expert_name


@dataclass(frozen=True)
class LaserTarget:
    """One matrix and the rank it gets.

    Attributes:
        module: its name in the scan.
        parameter: the stored tensor that holds it.
        expert: place in a tensor that fuses experts, or None.
        rank: singular values that stay, at least 1 and less than there are.
    """

    module: str
    parameter: str
    expert: int | None
    rank: int


def choose_targets(
    checkpoint: Checkpoint,
    scan: Scan,
    modules: Iterable[str],
    *,
    rank: int | None = None,
    fraction: float | None = None,
    ranks: Mapping[str, int] | None = None,
) -> tuple[tuple[LaserTarget, ...], tuple[str, ...]]:
    """Give every chosen module its rank: by default the number of singular values above the Marchenko-Pastur edge.

    A matrix without a value above the edge keeps one: a zero matrix is no approximation but an amputation.

    Args:
        checkpoint: holds the matrices, as plain numbers.
        scan: of the same checkpoint.
        modules: names of the chosen modules, in the scan's spelling.
        rank: the same rank for all.
        fraction: share of the shorter side, in (0, 1), rounded to the nearest whole number of at least 1.
        ranks: of each module (:func:`~spectrum_fast.choose.selection.export.low_ranks.module_ranks`, or PEFT's file).

    Returns:
        targets in the given order, and the modules that would keep all of their singular values and stay as they are.

    Raises:
        UsageError: two of rank, fraction and ranks are given, one is out of range, or the scan does not know the edge.
        SelectionError: a module is not in the scan.
        CheckpointError: a module's tensor is not in the checkpoint, is packed, or has another shape than was scanned.
    """
    if sum(value is not None for value in (rank, fraction, ranks)) > 1:
        raise UsageError("rank, fraction and ranks all say what stays of a matrix; give one of them")
    if rank is not None and rank < 1:
        raise UsageError(f"rank: expected a whole number of 1 or more, found {rank}")
    if fraction is not None and not 0 < fraction < 1:
        raise UsageError(f"fraction: expected a number in (0, 1), found {fraction}")
    if "minus" in scan.provenance:
        raise UsageError(f"scan of {scan.model}: expected one of the model itself, found one of a difference; scan it")
    scores = {module.name: module for module in scan.modules}
    stored = {ref.name: ref for ref in checkpoint.tensors}
    targets: list[LaserTarget] = []
    whole: list[str] = []
    for name in modules:
        score = scores.get(name)
        if score is None:
            raise SelectionError(f"{name}: chosen, but not in the scan of {scan.model}; scan the checkpoint again")
        ref, expert = _home(checkpoint, stored, score)
        full = min(ref.shape[-2:])
        kept = _rank(score, scan.criterion, full, rank, fraction) if ranks is None else min(ranks[name], full)
        if kept >= full:
            whole.append(name)
        else:
            targets.append(LaserTarget(name, ref.name, expert, kept))
    return tuple(targets), tuple(whole)


def _home(checkpoint: Checkpoint, stored: Mapping[str, TensorRef], score: ModuleScore) -> tuple[TensorRef, int | None]:
    """The stored tensor of a module, and its place in it."""
    name = score.parameter or f"{score.name}.weight"
    ref = stored.get(name)
    if ref is None:
        raise CheckpointError(
            f"{checkpoint.name}: expected a tensor {name} for module {score.name}, found none; is the scan of another "
            "checkpoint?"
        )
    if not decodable(ref.dtype):
        raise CheckpointError(
            f"{name} in {ref.file}: stored as {ref.dtype} codes, which cannot take other values; use the unquantised "
            "checkpoint"
        )
    if len(ref.shape) == 2 and score.shape in (None, ref.shape):
        return ref, None
    if len(ref.shape) == 3 and score.shape in (None, ref.shape[1:]):
        for expert in range(ref.shape[0]):
            if expert_name(name, expert) == score.name:
                return ref, expert
    raise CheckpointError(
        f"{name} in {ref.file}: has the shape {ref.shape}, the scan of module {score.name} says {score.shape}; "
        "is the scan of another checkpoint?"
    )


def _rank(score: ModuleScore, criterion: str, full: int, rank: int | None, fraction: float | None) -> int:
    if rank is not None:
        return min(rank, full)
    if fraction is not None:
        return max(1, round(fraction * full))
    if score.mp_rank is None and score.n_signal is not None and criterion == "mp":  # a scan from before it was counted
        return max(1, score.n_signal)
    return module_rank(score, RankOptions())
