"""Ways from the host to the device that torch's own C++ goes without the dispatcher."""

from __future__ import annotations

from typing import Any

import torch

from emulated_cuda import streams
from emulated_cuda.tensors import DEVICE, DeviceTensor, copy_between

_to = torch.Tensor.to
_tensor = torch.tensor
_has_compatible = torch._has_compatible_shallow_copy_type


def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``Tensor.to``: where it changes the device, a copy; else torch's own."""
    if args and isinstance(args[0], torch.Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    plain = {name: value for name, value in kwargs.items() if name != "copy"}
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **plain)
    if device is None or (device.type == "cuda") == isinstance(self, DeviceTensor):
        if device is None or device.type == "cpu":
            return _to(self, *args, **kwargs)
        return _to(self, dtype or self.dtype, non_blocking, bool(kwargs.get("copy")), memory_format=memory_format)
    if device.type == "cpu":
        return torch.ops.aten._to_copy.default(self, dtype=dtype, device="cpu", non_blocking=non_blocking)
    source = self.detach()
    found = DeviceTensor(streams.forget(torch.empty_like(source, dtype=dtype or self.dtype)))
    copy_between(found, source, non_blocking=non_blocking)
    return found


def cuda(self: torch.Tensor, device: object = None, non_blocking: bool = False, **_: object) -> torch.Tensor:
    """``Tensor.cuda``."""
    return to(self, DEVICE, non_blocking=non_blocking)


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> torch.Tensor:
    """``torch.tensor``: made on the host, then copied."""
    made = _tensor(data, dtype=dtype, requires_grad=requires_grad)
    if pin_memory:
        streams.pin(made)
    return made if device is None else to(made, device)


def pin_memory(self: torch.Tensor) -> torch.Tensor:
    """``Tensor.pin_memory``."""
    return streams.pin(self.clone())


def _compatible(input: torch.Tensor, from_: torch.Tensor) -> bool:
    return isinstance(input, DeviceTensor) == isinstance(from_, DeviceTensor) and _has_compatible(input, from_)


def install() -> None:
    """Into torch."""
    torch.Tensor.to = to
    torch.Tensor.cuda = cuda
    torch.Tensor.pin_memory = pin_memory
    torch.Tensor.is_pinned = lambda self, device=None: streams.is_pinned(self)
    torch.tensor = tensor
    # Else Module.cuda() would put the device's tensor into the host's, whose class knows nothing of it.
    torch._has_compatible_shallow_copy_type = _compatible
