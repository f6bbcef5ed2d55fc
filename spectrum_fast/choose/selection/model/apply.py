"""A selection applied to a live model: everything frozen but the parameters of the selected modules.

:mod:`~spectrum_fast.choose.selection.model.resolve` finds the entries. Nothing is changed unless every entry matches: a
silent full or empty fine-tune is the worst outcome there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.model.masking import PartMask, mask_parts, remove_masks
from spectrum_fast.choose.selection.model.resolve import ResolvedSelection, resolve_selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.words import count_of, list_some, share_of_bytes

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection

PARTIAL = ("refuse", "whole", "mask")
"""What to do with a fused parameter of which only some experts are selected: an error, train all of it, or train all of
it with the gradient of the other experts held at zero."""


@dataclass(frozen=True, kw_only=True)
class AppliedSelection:
    """What is trained, after :func:`apply_selection` or as it stands. Shared (tied) parameters count once.

    Attributes:
        trainable_tensors: parameters that are trained.
        trainable_parameters: numbers in them; of one trained in part the unmasked ones.
        total_parameters: numbers in all parameters of the model; a packed 4-bit weight counts its values.
        trainable_bytes: bytes of the trainable tensors, which is what gradients and optimizer states are made for;
            masked numbers count.
        total_bytes: bytes of all parameters.
        matched: entry -> names of the parameters it freed, as the model calls them.
        unmatched: entries that matched nothing (only with ``strict=False``).
        masks: parameter -> what of it is trained, for those trained in part.
    """

    trainable_tensors: int
    trainable_parameters: int
    total_parameters: int
    trainable_bytes: int
    total_bytes: int
    matched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    masks: Mapping[str, PartMask] = field(default_factory=dict)

    @property
    def trainable_fraction(self) -> float:
        """Trainable share of the parameters, in [0, 1]."""
        return self.trainable_parameters / max(1, self.total_parameters)

    def summary(self) -> str:
        """One line for people."""
        text = (
            f"{self.trainable_parameters:,} of {self.total_parameters:,} parameters trainable "
            f"({100 * self.trainable_fraction:.2f} %), "
            f"{share_of_bytes(self.trainable_bytes, self.total_bytes)}"
        )
        if self.matched:
            text += f", {count_of(len(self.matched), 'module')}"
        if self.masks:
            text += f"; {count_of(len(self.masks), 'fused parameter')} in part"
        if self.unmatched:
            text += f"; {count_of(len(self.unmatched), 'entry', 'entries')} matched nothing"
        return text


def apply_selection(
    selection: Selection, model: nn.Module, *, strict: bool = True, partial: str = "refuse"
) -> AppliedSelection:
    """Set ``requires_grad`` to True for the selection's parameters and to False for all others.

    Args:
        selection: what to train.
        model: any torch module that holds the parameters, wrapped or not.
        strict: every entry must match at least one parameter. With False, entries without a match are reported in
            ``unmatched``; at least one entry must match.
        partial: one of :data:`PARTIAL`, for fused parameters of which only some experts are selected. With ``mask``
            give these parameters no weight decay (``spectrum-fast train`` does): it would move masked experts.

    Returns:
        counts, bytes and what each entry matched.

    Raises:
        SelectionError: an entry matches nothing or several different modules, a matched parameter is quantised and
            cannot have a gradient, a fused parameter is selected in part, the model carries adapters, or the selection
            is empty. The model is unchanged then.
        UsageError: ``partial`` is not one of :data:`PARTIAL`.
    """
    if partial not in PARTIAL:
        raise UsageError(f"unknown partial {partial!r}: expected one of {', '.join(PARTIAL)}")
    resolved = resolve_selection(selection, model, strict=strict)
    _require_gradients_possible(resolved)
    masks = mask_parts(resolved) if resolved.parts and partial != "whole" else {}
    if masks and partial == "refuse":
        raise SelectionError(_partial_message(masks))

    remove_masks(model)
    for parameter in resolved.parameters.values():
        parameter.requires_grad_(False)
    for found in resolved.matched.values():
        for name in found:
            resolved.parameters[name].requires_grad_(True)
    for name, mask in masks.items():
        mask.attach(resolved.parameters[name])
    return measure_trainable(model, masks, matched=resolved.matched, unmatched=resolved.unmatched)


def _require_gradients_possible(resolved: ResolvedSelection) -> None:
    for name, found in resolved.matched.items():
        for parameter in found:
            if not resolved.parameters[parameter].is_floating_point():
                raise SelectionError(
                    f"{name}: parameter {parameter!r} is stored as {resolved.parameters[parameter].dtype}, which "
                    "cannot have a gradient; on a quantised model train adapters on the selected modules instead "
                    "(selection.lora_config, format 'peft')"
                )


def measure_trainable(
    model: nn.Module, masks: Mapping[str, PartMask] = MappingProxyType({}), **found: Any
) -> AppliedSelection:
    """Count what is trainable in a live model, partitioned or not."""
    unique = list(model.parameters())
    trainable = [parameter for parameter in unique if parameter.requires_grad]
    masked = sum(mask.total - mask.trained for mask in masks.values())
    return AppliedSelection(
        trainable_tensors=len(trainable),
        trainable_parameters=sum(map(_values, trainable)) - masked,
        total_parameters=sum(map(_values, unique)),
        trainable_bytes=sum(_count(parameter) * parameter.element_size() for parameter in trainable),
        total_bytes=sum(_count(parameter) * parameter.element_size() for parameter in unique),
        masks=masks,
        **found,
    )


def _count(parameter: nn.Parameter) -> int:
    """Numbers in a parameter; DeepSpeed ZeRO-3 leaves an empty stand-in and the true count in ``ds_numel``."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _values(parameter: nn.Parameter) -> int:
    """The same, but two values a byte where bitsandbytes packs them."""
    return _count(parameter) * (2 * parameter.element_size() if type(parameter).__name__ == "Params4bit" else 1)


def _partial_message(masks: Mapping[str, PartMask]) -> str:
    lines = [f"{name}: {len(mask.entries)} of its {mask.parts} tensors are selected" for name, mask in masks.items()]
    shown = list_some(lines, 5, between="\n  ")
    return (
        f"{len(masks)} parameters of the model hold several selected and unselected tensors each, and a part of a "
        f"parameter cannot be frozen, so nothing was changed:\n  {shown}\n"
        "Let fused parameters compete as one by their aggregated score (`spectrum-fast train` with a scan does), or "
        "choose partial='whole' (train all of each) or partial='mask' (train the selected experts inside each)"
    )
