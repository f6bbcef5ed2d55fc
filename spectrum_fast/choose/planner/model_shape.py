"""The model as it will stand in memory: transformers' own, on the meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton, read_skeleton
from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.formats.recognition import find_packed

if TYPE_CHECKING:
    from spectrum_fast.read.checkpoint import Checkpoint


def read_model_shape(checkpoint: Checkpoint) -> ModelSkeleton:
    """Build the model that a checkpoint will become in memory; nothing but headers and config is used.

    Args:
        checkpoint: opened; stored as plain numbers.

    Raises:
        CheckpointError: it holds packed weights, or transformers does not know the architecture that its config names.
    """
    quantised = find_packed(checkpoint.tensors)
    if quantised.packed:
        first = next(iter(quantised.packed.values()))
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
