"""Tensors that say ``cuda:0``: each holds a tensor of the host, on which every operation is done.

Operations on tensors come by ``__torch_dispatch__``; those that make tensors of nothing come to the dispatcher with the
key CUDA, which a build of torch for the CPU leaves free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from emulated_cuda import graphs, streams, waits
from emulated_cuda.memory import LEDGER

DEVICE = torch.device("cuda", 0)
_aten = torch.ops.aten
_TAKES_DEVICE = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
"""Indices may lie on the host."""
_library: torch.library.Library | None = None


class DeviceTensor(torch.Tensor):
    """A tensor on the emulated device.

    Args:
        host: its numbers.
    """

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> DeviceTensor:
        """A tensor without memory of its own."""
        assert type(host) is torch.Tensor, f"expected a tensor of the host, found {type(host)}"
        LEDGER.hold(host)
        return torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )

    def __init__(self, host: torch.Tensor) -> None:
        self.host = host

    def __del__(self, release: Callable[[torch.Tensor], None] = LEDGER.release) -> None:
        """Its memory is free if no other tensor refers to it."""
        release(self.host)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation that has such a tensor among its arguments."""
        return run(func, args, kwargs or {})

    def data_ptr(self) -> int:
        """Where its numbers lie."""
        return self.host.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """The host's; kernels in the interpreter work there."""
        return self.host.untyped_storage()

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Torch's C++ makes a tensor of a list of places, past the dispatcher."""
        return torch.Tensor.__getitem__(self, _with_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        """As above."""
        torch.Tensor.__setitem__(self, _with_tensors(index), value)

    def tolist(self) -> Any:
        """As on a GPU: one transfer, for which the host waits."""
        waits.note("tolist")
        streams.require_arrived([self])
        return self.host.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as torch refuses it."""
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.cpu().numpy()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        """What it holds, without counting a wait."""
        return f"emulated {self.host!r}"

    def record_stream(self, stream: object) -> None:
        """Memory is never used again early here."""

    def __deepcopy__(self, memo: dict[int, object]) -> DeviceTensor:
        """A copy on the device."""
        return self.clone()


def _with_tensors(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_with_tensors(part) for part in index)
    return torch.tensor(index, dtype=None if index else torch.int64) if isinstance(index, list) else index


def to_host(value: Any) -> Any:
    """The host's tensor of a device tensor; anything else as it is."""
    return value.host if isinstance(value, DeviceTensor) else value


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation: on the right devices, waits counted, done on the host, captured where a graph is."""
    graphs.COUNT.operations += 1
    if func in (_aten.copy_.default, _aten._to_copy.default):
        return _copy(func, args, kwargs)
    leaves = tree_leaves((args, kwargs))
    on_device = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
    on_host = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, DeviceTensor)]
    on_host = [tensor for tensor in on_host if tensor.ndim]  # a single number goes along with the launch
    if on_host and func.overloadpacket not in _TAKES_DEVICE:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in on_host)
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}: {shapes} on the host)"
        )
    waits.note_operation(func.overloadpacket, on_device, on_host)
    streams.require_arrived(on_device)
    wanted = kwargs.get("device")
    options = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory")}
    if wanted is not None:
        options["device"] = "cpu"
    host_args, host_options = tree_map(to_host, args), tree_map(to_host, options)
    out = _on_host(func, host_args, host_options)
    streams.wrote(_written_by(func, host_args, out))
    graphs.captured(func, host_args, host_options, out)
    if wanted is not None and torch.device(wanted).type == "cpu":
        return out
    return _to_device(out, on_device)


def _written_by(func: Any, args: Any, out: Any) -> list[torch.Tensor]:
    """Tensors in new memory, and those that are changed in place."""
    pairs = zip(args, func._schema.arguments, strict=False)
    changed = [value for value, known in pairs if known.alias_info is not None and known.alias_info.is_write]
    given = {leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
    made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
    return changed + [tensor for tensor in made if tensor.untyped_storage()._cdata not in given]


def _on_host(func: Any, args: Any, options: Any) -> Any:
    if func is _aten.mm.dtype or func is _aten.bmm.dtype:  # has no form for the CPU
        return torch.matmul(args[0].to(args[2]), args[1].to(args[2]))
    return func(*args, **options)


def _to_device(out: Any, known: Iterable[DeviceTensor]) -> Any:
    """Tensors that came out; one that went in (an operation in place) comes out as the same object."""
    same = {id(tensor.host): tensor for tensor in known}

    def wrapped(value: Any) -> Any:
        if type(value) is not torch.Tensor:
            return value
        return same[id(value)] if id(value) in same else DeviceTensor(value)

    return tree_map(wrapped, out)


def _copy(func: Any, args: Any, kwargs: Any) -> Any:
    """Between the host and the device, or on the device, with or without a conversion."""
    if func is _aten.copy_.default:
        target, source = args[0], args[1]
        copy_between(target, source, non_blocking=bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False)))
        return target
    source, device = args[0], kwargs.get("device")
    dtype = kwargs.get("dtype") or source.dtype
    leaves = device is not None and torch.device(device).type == "cpu"
    streams.require_arrived([source] if isinstance(source, DeviceTensor) else [])
    strides = to_host(source).clone()  # keeps what is dense as it is
    target = torch.empty_like(strides, dtype=dtype, memory_format=kwargs.get("memory_format") or torch.preserve_format)
    found = target if leaves else DeviceTensor(streams.forget(target))
    graphs.captured(_aten.empty_like.default, (), {}, [] if leaves else target)
    copy_between(found, source, non_blocking=bool(kwargs.get("non_blocking")))
    return found


def copy_between(target: torch.Tensor, source: torch.Tensor, *, non_blocking: bool) -> None:
    """``target.copy_(source)``: asynchronous from page-locked memory only, and on a side stream not there at once."""
    across = isinstance(target, DeviceTensor) != isinstance(source, DeviceTensor)
    there, here = to_host(target), to_host(source)
    if not across:
        streams.require_arrived([tensor for tensor in (target, source) if isinstance(tensor, DeviceTensor)])
        there.copy_(here)
        streams.wrote([there])
        graphs.captured(_aten.copy_.default, (there, here), {}, there)
        return
    graphs.refuse_copy()
    of_host = source if isinstance(target, DeviceTensor) else target
    if not (non_blocking and streams.is_pinned(of_host)):
        waits.note("copy between host and device")
        streams.require_arrived([tensor for tensor in (target, source) if isinstance(tensor, DeviceTensor)])
        there.copy_(here)
        streams.wrote([there])
    else:
        if isinstance(source, DeviceTensor):
            streams.require_arrived([source])
        streams.wrote([there])
        streams.enqueue_copy(there, here)


def install() -> None:
    """Operations with the key CUDA come here."""
    global _library
    assert not torch.cuda.is_available(), "there is a GPU: nothing to emulate"
    _library = torch.library.Library("_", "IMPL", "CUDA")
    _library.fallback(lambda func, *args, **kwargs: run(func, args, kwargs))
