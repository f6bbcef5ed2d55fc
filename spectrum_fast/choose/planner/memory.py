"""The plan: everything that lies on one GPU at the worst moment, and the largest share that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from spectrum_fast.choose.planner.activations import ActivationBytes, compute_activations
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.planner.states import StateBytes, compute_states
from spectrum_fast.choose.planner.trained import TrainedModel, choose_trained, competing_groups
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton, read_skeleton
from spectrum_fast.choose.selection.ranking import largest_that_fits
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import CheckpointError, SelectionError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.formats.recognition import find_packed

GIB = 2**30
NOTES = ("the CUDA context and fragmentation (commonly 0.5 to 2 GiB) come on top",)
"""What a reader must know to trust the figures as far as they go."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Predicted memory of one GPU. All figures count what torch allocates; the driver's context comes on top."""

    trained: TrainedModel
    setup: TrainingSetup
    states: StateBytes
    activations: ActivationBytes
    top_percent: float | None

    @property
    def peak(self) -> int:
        """Bytes alive at the worst moment: in the backward pass, or in the step."""
        states = self.states
        held, appeared = (states.gradients, 0) if self.setup.holds_gradients else (0, states.gradients)
        resting = states.weights + states.master + states.moments + states.buffers + held
        return resting + max(states.gathered + self.activations.peak, states.step + appeared)

    @property
    def trained_fraction(self) -> float:
        """Trained numbers over the model's own, in (0, 1]; adapters count above the line only."""
        return self.trained.trained_count / self.trained.count

    def parts(self) -> dict[str, int]:
        """The five parts in bytes: weights, gradients, optimizer, activations, buffers.

        Their sum is at least the peak; it is more where two of them are never alive at one time.
        """
        states = self.states
        return {
            "weights": states.weights,
            "gradients": states.gradients,
            "optimizer": states.master + states.moments,
            "activations": self.activations.peak - self.activations.gradients,
            "buffers": states.buffers + states.gathered + states.step,
        }

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "schema": 1,
            "model": self.trained.name,
            "setup": asdict(self.setup),
            "chosen": self.trained.assumption,
            "top_percent": self.top_percent,
            "parameters": self.trained.count,
            "trained_parameters": self.trained.trained_count,
            "trained_fraction": self.trained_fraction,
            "per_gpu_bytes": {**self.parts(), "peak": self.peak, "host": self.states.host},
            "states_bytes": asdict(self.states),
            "activations_bytes": asdict(self.activations),
            "notes": list(NOTES),
        }


def read_model_shape(source: str | PathLike[str]) -> ModelSkeleton:
    """The model that a checkpoint will become in memory: transformers' own, from nothing but headers and config.

    Raises:
        CheckpointError: it holds packed weights, or transformers does not know the architecture that its config names.
    """
    checkpoint = open_checkpoint(source)
    if packed := find_packed(checkpoint.tensors).packed:
        first = next(iter(packed.values()))
        raise CheckpointError(
            f"{checkpoint.name}: a plan starts from unquantised shapes, found {first.codes.name} stored as "
            f"{first.layout}; plan with the original checkpoint (method qlora quantises it)"
        )
    found = read_skeleton(checkpoint.source, "runtime")
    if not hasattr(found.module, "get_input_embeddings"):
        raise CheckpointError(
            f"{checkpoint.name}: expected a language model of transformers, found another; it has none"
        )
    return found


def plan_memory(
    model: ModelSkeleton,
    setup: TrainingSetup,
    *,
    scan: Scan | None = None,
    selection: Selection | None = None,
    top_percent: float = 25,
    always: str | Sequence[str] = "default",
) -> MemoryPlan:
    """Predict the memory of one GPU.

    A selection wins over ``scan`` and ``top_percent``; without either the modules are spread evenly over the layers.

    Raises:
        SelectionError: nothing would be trained, or scan and checkpoint do not belong together.
        UsageError: an argument is out of range.
    """
    if selection is None and scan is not None and setup.selects:
        selection = scan.select(top_percent, always=always)
    trained = choose_trained(model, setup, selection=selection, top_percent=top_percent, always=always)
    percent = selection.top_percent if selection is not None else top_percent
    return MemoryPlan(
        trained=trained,
        setup=setup,
        states=compute_states(trained, setup),
        activations=compute_activations(trained, setup),
        top_percent=percent if setup.selects else None,
    )


def fit_percent(
    model: ModelSkeleton,
    setup: TrainingSetup,
    limit_bytes: int,
    *,
    scan: Scan | None = None,
    always: str | Sequence[str] = "default",
) -> MemoryPlan:
    """The plan with the largest ``top_percent`` whose peak stays within ``limit_bytes``.

    Only percentages at which the number of modules of some type changes are looked at; the peak does not fall when the
    percentage grows, so they are halved.

    Raises:
        UsageError: the method selects nothing.
        SelectionError: not even the smallest share fits.
    """
    if not setup.selects:
        raise UsageError(f"fit looks for a share of the modules, found method {setup.method!r}, which takes no share")
    best = largest_that_fits(
        {len(members) for members in competing_groups(model.module).values()},
        lambda percent: plan_memory(model, setup, scan=scan, top_percent=percent, always=always),
        lambda plan: plan.peak <= limit_bytes,
    )
    if best.peak > limit_bytes:
        raise SelectionError(
            f"{model.name}: the smallest share ({best.top_percent:g} % of each type) needs {best.peak / GIB:.2f} GiB a "
            f"GPU, found a limit of {limit_bytes / GIB:.2f} GiB; use more GPUs, checkpointing, offloading, a smaller "
            "batch or a method with adapters"
        )
    return best
