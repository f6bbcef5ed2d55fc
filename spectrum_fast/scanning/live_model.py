"""A live model as a checkpoint: every tensor under the name that its checkpoint would give it, where it lies.

Nothing is copied here. What a quantised layer keeps beside its codes (bitsandbytes) is listed under the names that its
own ``state_dict`` uses, so that a live model is planned and decoded exactly as its checkpoint would be. Tensors that
are not all here (DeepSpeed ZeRO-3 partitions, FSDP2 shards) are gathered when they are asked for, and released then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectrum_fast.choose.selection.model.names import unwrapped_name
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint import Checkpoint, TensorRef
from spectrum_fast.read.checkpoint.dtypes import storage_name
from spectrum_fast.read.checkpoint.duplicates import name_originals
from spectrum_fast.read.formats.recognition import find_packed

_ADAPTERS = frozenset(
    {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "original_module"}
)
"""Components of names that PEFT gives to what stands beside a weight; ``original_module`` is the frozen original of a
module whose trained copy (``modules_to_save``) is the weight."""


class LiveModel:
    """The tensors of a live model; nothing is read or moved.

    Args:
        model: the model.

    Attributes:
        checkpoint: their names, types and shapes, with ``live`` in place of a file.
        ties: duplicate -> original, for parameters that are one object under several names.
        adapters: names of tensors that belong to an adapter beside the weights.

    Raises:
        UsageError: two parameters would have one name once wrappers are taken off, or FSDP1 has flattened them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.adapters: list[str] = []
        self._refs: dict[str, TensorRef] = {}
        self._tensors: dict[str, Callable[[], Tensor]] = {}
        self._owners: dict[str, Tensor] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._look_at(f"{path}." if path else "", module)
        quantised = find_packed(self._refs.values())
        # By identity: equal values in two parameters are no tie.
        self.ties = name_originals({self._refs[name]: id(owner) for name, owner in self._owners.items()})
        # Buffers only where they belong to codes.
        wanted = (self._owners.keys() | quantised.packed.keys() | quantised.companions.keys()) - self.ties.keys()
        tensors = tuple(ref for ref in self._refs.values() if ref.name in wanted)
        config = getattr(model, "config", None)
        text = "\n".join(f"{ref.name} {ref.dtype} {ref.shape}" for ref in tensors)
        kind = type(model).__name__
        self.checkpoint = Checkpoint(
            source=f"live model {kind}",
            name=str(getattr(config, "_name_or_path", "") or kind),
            files=(),
            tensors=tensors,
            config=_plain_config(config),
            notes=(),
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        )

    def whole(self, name: str) -> AbstractContextManager[Any]:
        """While this lasts, the tensor is there in full. Collective where the model is partitioned: on all ranks."""
        owner = self._owners.get(name)
        if not hasattr(owner, "ds_id"):
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters([owner])  # on leaving, partitions are as before

    @property
    def is_partitioned(self) -> bool:
        """Whether gathering needs the other ranks (ZeRO-3, FSDP2)."""
        return any(hasattr(owner, "ds_id") or hasattr(owner, "full_tensor") for owner in self._owners.values())

    def tensor(self, name: str) -> Tensor:
        """The tensor, on its own device, detached; not a copy where the model holds it in full."""
        return self._tensors[name]()

    def is_absent(self, name: str) -> bool:
        """Whether its values are not here: accelerate leaves a stand-in on the meta device for what it offloads."""
        owner = self._owners.get(name)
        return owner is not None and owner.is_meta

    def _look_at(self, prefix: str, module: nn.Module) -> None:
        """Note the module's own parameters and persistent buffers."""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                self._add_parameter(_checkpoint_name(prefix + name), parameter, module)
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                self._add(_checkpoint_name(prefix + name), buffer.shape, buffer.dtype, buffer.detach)

    def _add_parameter(self, name: str, parameter: nn.Parameter, module: nn.Module) -> None:
        if name.rpartition(".")[2] == "_flat_param" or type(parameter).__name__ == "FlatParameter":
            raise UsageError(
                f"{name}: expected parameters of their own shape, found one flattened by FSDP1; "
                "wrap with use_orig_params=True and summon_full_params, or use FSDP2"
            )
        if not _ADAPTERS.isdisjoint(name.split(".")):
            self.adapters.append(name)
            return
        self._owners[name] = parameter
        shape = getattr(parameter, "ds_shape", parameter.shape)
        state = getattr(parameter, "quant_state", None)
        if state is not None and hasattr(state, "as_dict"):
            self._add_bitsandbytes_4bit(name, shape, parameter, state)
            return
        self._add(name, shape, parameter.dtype, lambda: _full(parameter))
        maxima = getattr(parameter, "SCB", None)
        if maxima is None:
            maxima = getattr(getattr(module, "state", None), "SCB", None)
        if parameter.dtype == torch.int8 and isinstance(maxima, Tensor):
            self._add(f"{name.removesuffix('weight')}SCB", maxima.shape, maxima.dtype, maxima.detach)

    def _add_bitsandbytes_4bit(self, name: str, shape: torch.Size, parameter: nn.Parameter, state: Any) -> None:
        """Codes and description as ``Linear4bit.state_dict`` has them."""
        if getattr(state, "packing_format_for_cpu", False):
            # Inference on a CPU with AVX512-BF16 repacks the codes; they are unpacked into a copy, when asked for.
            self._add(name, shape, torch.uint8, lambda: _unpacked_codes(parameter, state))
        else:
            self._add(name, shape, parameter.dtype, lambda: _full(parameter))
        for key, value in state.as_dict(packed=True).items():
            if key == "absmax" and getattr(state, "packing_format_for_cpu", False):
                value = value.T.reshape(-1).to(torch.float32)
            self._add(f"{name}.{key}", value.shape, value.dtype, value.detach)

    def _add(self, name: str, shape: torch.Size, dtype: torch.dtype, get: Callable[[], Tensor]) -> None:
        if name in self._tensors:
            raise UsageError(f"{name}: expected one tensor of this name in the live model, found two")
        self._tensors[name] = get
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        self._refs[name] = TensorRef(name, Path("live"), storage_name(dtype), tuple(shape), 0, nbytes)


def _checkpoint_name(name: str) -> str:
    """The name in a checkpoint of the model: without wrappers, and without what PEFT puts between module and weight."""
    parts = [part for part in unwrapped_name(name).split(".") if part != "base_layer"]
    for place, part in enumerate(parts[:-1]):
        if part == "modules_to_save":  # PEFT trains a copy; the copy is the weight
            del parts[place : place + 2]
            break
    return ".".join(parts)


def _full(parameter: Tensor) -> Tensor:
    found = parameter.detach()
    gather = getattr(found, "full_tensor", None)  # an FSDP2 shard
    return gather() if gather is not None else found


def _unpacked_codes(parameter: Tensor, state: Any) -> Tensor:
    import copy

    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    codes, _ = _convert_weight_packed_for_cpu_inverse(parameter.detach().clone(), copy.copy(state))
    return codes


def _plain_config(config: Any) -> dict[str, Any] | None:
    to_dict = getattr(config, "to_dict", None)
    found = to_dict() if callable(to_dict) else None
    return found if isinstance(found, dict) else None
