"""What transformers makes of a checkpoint's tensor names when it loads them, asked of the library itself.

transformers renames and fuses on load: ``mlp.experts.3.gate_proj.weight`` becomes a slice of the 3-D parameter
``mlp.experts.gate_up_proj``, ``embed_out.weight`` becomes ``lm_head.weight``. Each model class carries its conversion
mapping; the functions here only ask it. A model that is not of transformers has no mapping, and nothing is imported
for it.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import nn


_SPLITS = 12
"""An extent that two, three or four tensors share evenly: as many are found in it as in one place, or it matters."""


class LoadedAs(NamedTuple):
    """The live model's parameters that hold a checkpoint's tensor, and whether it is one of several fused into one."""

    parameters: tuple[str, ...]
    is_part: bool


class Conversion:
    """The conversion mapping of a live model."""

    def __init__(self, model: nn.Module) -> None:
        self._prefix, self._inner = _pretrained_model(model)
        self._renamings: list[Any] = []
        self._converters: list[Any] = []
        self._names: dict[str, str] = {}
        if self._inner is None:
            return
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter

        transforms = getattr(self._inner, "_weight_conversions", None) or get_model_conversion_mapping(self._inner)
        self._converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        self._renamings = [transform for transform in transforms if not isinstance(transform, WeightConverter)]
        # PEFT puts `base_layer` into the names of what its adapters wrap.
        self._names = {re.sub(r"\.base_layer\b", "", name): name for name, _ in self._inner.named_parameters()}

    def loaded_as(self, tensor: str) -> LoadedAs | None:
        """Where the checkpoint's tensor ``tensor`` lies, or None if the model has no parameter for it."""
        if self._inner is None:
            return None
        from transformers.core_model_loading import rename_source_key

        found, pattern = rename_source_key(
            tensor, self._renamings, self._converters, self._inner.base_model_prefix, self._names
        )
        converter = next((one for one in self._converters if pattern in one.source_patterns), None)
        targets = [found]
        if converter is not None:
            first, *others = converter.target_patterns
            targets += [found.replace(first, other) for other in others]
        parameters = tuple(self._prefix + self._names[name] for name in targets if name in self._names)
        is_part = converter is not None and (
            len(converter.source_patterns) > 1 or any("*" in source for source in converter.source_patterns)
        )
        return LoadedAs(parameters, is_part) if parameters else None

    def module_loaded_as(self, name: str, parameter: str | None) -> LoadedAs | None:
        """The same of a module's tensor, by the names that it can have in a checkpoint, likeliest first."""
        names = dict.fromkeys((parameter or f"{name}.weight", f"{name}.weight", name))
        return next(filter(None, map(self.loaded_as, names)), None)

    def parts(self, parameter: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], dict[str, torch.Tensor]]:
        """The checkpoint's tensors inside a fused parameter, each as the flat places (int64) of its values there.

        The library's own way back, which it takes when it saves, is run on the parameter's flat indices instead of its
        values, so whatever it does (stack, concatenate, interleave, transpose) the places are right. A dimension on
        which no tensor depends has one place: a layer of experts needs megabytes where its values are gigabytes.

        Returns:
            the shape in which places count, which broadcasts to ``shape``, and the places.
        """
        if self._inner is None:
            return shape, {}
        smallest = shape
        for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
            one, several = ((*smallest[:axis], extent, *smallest[axis + 1 :]) for extent in (1, _SPLITS))
            if (found := self._split(parameter, one)) and found.keys() == self._split(parameter, several).keys():
                smallest = one
        return smallest, self._split(parameter, smallest)

    def _split(self, parameter: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """The places in a parameter of this shape; none where the library cannot take such a shape apart."""
        import torch
        from transformers.core_model_loading import revert_weight_conversion

        places = torch.arange(torch.Size(shape).numel()).reshape(shape)
        try:
            return revert_weight_conversion(self._inner, {parameter.removeprefix(self._prefix): places})
        except (RuntimeError, ValueError, IndexError):
            return {}


def _pretrained_model(model: nn.Module) -> tuple[str, Any]:
    """Name prefix and instance of the outermost transformers model in ``model``; None if there is none."""
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None:  # nobody has imported transformers, so the model is not of it
        return "", None
    for name, module in model.named_modules():
        if isinstance(module, modeling.PreTrainedModel):
            return f"{name}." if name else "", module
    return "", None
