"""The model as it will stand in memory: transformers' own, on the meta device, and what is known of its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.model_skeleton import read_skeleton
from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.naming import module_name, role
from spectrum_fast.read.formats.recognition import find_packed

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.read.checkpoint import Checkpoint


@dataclass(frozen=True)
class ParameterShape:
    """One parameter in memory: its full name and its extents."""

    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """The module that holds it: the name without ``.weight`` or ``.bias``."""
        return module_name(self.name).removesuffix(".bias")

    @property
    def is_linear(self) -> bool:
        """Whether it is the weight of a linear layer inside the network: a matrix, no lookup table, no head."""
        return len(self.shape) == 2 and self.name.endswith(".weight") and not self.is_end

    @property
    def is_end(self) -> bool:
        """Whether it is a lookup table or the output projection."""
        return role(self.name) != "other"


@dataclass(frozen=True)
class ModelShape:
    """What a plan needs to know of a model.

    Attributes:
        name: display name.
        module: transformers' model without weights; experts are fused, the head tied, as it has them.
    """

    name: str
    module: nn.Module = field(repr=False, compare=False)

    @cached_property
    def parameters(self) -> tuple[ParameterShape, ...]:
        """All parameters, shared ones once."""
        return tuple(ParameterShape(name, tuple(value.shape)) for name, value in self.module.named_parameters())

    @property
    def count(self) -> int:
        """Numbers in all parameters."""
        return sum(parameter.count for parameter in self.parameters)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.module.get_input_embeddings().weight.shape[1]  # pyright: ignore[reportCallIssue]

    def layers(self) -> Iterator[int]:
        """Numbers in each layer: what FSDP2 gathers together."""
        for module in self.module.modules():
            if type(module).__name__ in (getattr(self.module, "_no_split_modules", None) or ()):
                yield sum(parameter.numel() for parameter in module.parameters())


def read_model_shape(checkpoint: Checkpoint) -> ModelShape:
    """Describe the model that a checkpoint will become in memory; nothing but headers and config is used.

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
    module = read_skeleton(checkpoint.source, "runtime").module
    if not hasattr(module, "get_input_embeddings"):
        raise CheckpointError(
            f"{checkpoint.name}: expected a language model of transformers, found another; it has none"
        )
    return ModelShape(checkpoint.name, module)
