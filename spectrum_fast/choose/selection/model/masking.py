"""Some experts of a fused parameter trained, the others held: the gradient of the others is zero.

With a zero gradient every element-wise optimizer (Adam, AdamW, SGD with momentum) leaves a value alone, except for
weight decay: give masked parameters none. Optimizers that mix the values of a matrix (Muon, factored moments) may
move masked values; :meth:`PartMask.digest` before and after tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from spectrum_fast.choose.selection.model.resolve import ResolvedSelection

_HOOK = "_spectrum_fast_mask"


@dataclass(frozen=True)
class PartMask:
    """What of a fused parameter is trained.

    Attributes:
        entries: the selected tensors in it, by module name.
        parts: how many tensors it holds.
        keep: boolean, True where it is trained; broadcasts to the parameter's shape.
        trained: how many of its numbers are trained.
        total: how many it has.
    """

    entries: tuple[str, ...]
    parts: int
    keep: torch.Tensor
    trained: int
    total: int

    def attach(self, parameter: nn.Parameter) -> None:
        """Zero the gradient of everything else from now on."""
        keep = self.keep

        def zero_the_others(gradient: torch.Tensor) -> torch.Tensor:
            return gradient.masked_fill(~keep.to(gradient.device), 0)

        setattr(parameter, _HOOK, parameter.register_hook(zero_the_others))

    def digest(self, parameter: torch.Tensor) -> str:
        """SHA-256 of the bytes that must not change: equal before and after, or something moved them."""
        import torch

        held = parameter.detach()[~self.keep.to(parameter.device).expand(parameter.shape)].cpu().contiguous()
        return hashlib.sha256(held.view(torch.uint8).numpy().tobytes()).hexdigest()


def is_masked(parameter: torch.Tensor) -> bool:
    """Whether a mask is attached to it."""
    return hasattr(parameter, _HOOK)


def remove_masks(model: nn.Module) -> None:
    """Detach every mask from the model's parameters."""
    for parameter in model.parameters():
        if is_masked(parameter):
            getattr(parameter, _HOOK).remove()
            delattr(parameter, _HOOK)


def mask_parts(resolved: ResolvedSelection) -> dict[str, PartMask]:
    """The masks of all fused parameters that are selected in part; those selected in full have none.

    Raises:
        SelectionError: where the selected tensors lie in the parameter is not known.
    """
    import torch

    masks: dict[str, PartMask] = {}
    whole = {
        name for entry, found in resolved.matched.items() for name in found if entry not in resolved.parts.get(name, ())
    }
    for name, entries in resolved.parts.items():
        if name in whole:
            continue
        parameter = resolved.parameters[name]
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        extents, places = _places(resolved, name, shape)
        lost = next((entry for entry in entries if entry not in places), None)
        if lost is not None:
            raise SelectionError(
                f"{lost}: it is a part of {name}, {shape}, but where in it cannot be told; "
                "select the fused parameter as a whole"
            )
        keep = torch.zeros(extents, dtype=torch.bool)
        for entry in entries:
            keep.view(-1)[places[entry].reshape(-1)] = True
        if not keep.all():
            total = torch.Size(shape).numel()
            trained = int(keep.sum()) * (total // keep.numel())
            masks[name] = PartMask(entries, len(places), _shrink(keep), trained, total)
    return masks


def _places(
    resolved: ResolvedSelection, name: str, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], dict[str, torch.Tensor]]:
    """Entry -> flat places of its values: by the library's conversion, or expert by expert where names say so.

    They count in the shape that comes first, which broadcasts to the parameter's.
    """
    extents, converted = resolved.lookup.conversion.parts(name, shape)
    places = {module_name(tensor): found for tensor, found in converted.items()}
    entries = resolved.parts[name]
    if all(entry in places for entry in entries) or len(converted) > 1 or len(shape) != 3:
        return extents, places
    return (shape[0], 1, 1), _by_expert(name, shape[0], entries)


def _by_expert(name: str, experts: int, entries: Iterable[str]) -> dict[str, torch.Tensor]:
    """Places of ``experts.<index>.<projection>`` in a tensor whose first dimension counts the experts."""
    import torch

    stem, _, last = module_name(name).rpartition(".")
    prefixes = {entry.rpartition(".")[0].rpartition(".")[0] for entry in entries}
    prefix = prefixes.pop() if len(prefixes) == 1 else f"{stem}.experts"
    return {f"{prefix}.{index}.{last}": torch.tensor(index) for index in range(experts)}


def _shrink(keep: torch.Tensor) -> torch.Tensor:
    """The same mask with every dimension that it does not depend on reduced to 1."""
    for axis in range(keep.ndim):
        first = keep.narrow(axis, 0, 1)
        if bool((keep == first).all()):
            keep = first.clone()
    return keep
