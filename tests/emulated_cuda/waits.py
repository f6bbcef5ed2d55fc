"""Operations for which the host waits until the device is done."""

from __future__ import annotations

import threading
import warnings
from collections import Counter

import torch

from emulated_cuda import streams

MESSAGE = "called a synchronizing CUDA operation"
COUNTED: Counter[str] = Counter()
"""How often each operation made the host wait, since the process began or somebody cleared it."""

_mode = "default"
_capturing: int | None = None

_aten = torch.ops.aten
_DATA_DEPENDENT = {
    _aten._local_scalar_dense,
    _aten._linalg_check_errors,
    _aten.equal,
    _aten.is_nonzero,
    _aten.masked_select,
    _aten.nonzero,
    _aten.unique_consecutive,
    _aten.unique_dim,
    _aten._unique,
    _aten._unique2,
}
"""What the host learns of numbers on the device: a value, or a shape that depends on values."""
INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
"""Masks are turned into places (a shape that depends on values); places on the host are copied to the device."""


def note(operation: str) -> None:
    """The host waits here."""
    if is_capturing():
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({operation})")
    COUNTED[operation] += 1
    streams.current().synchronize()
    if _mode == "error":
        raise RuntimeError(f"{MESSAGE} ({operation})")
    if _mode == "warn":
        warnings.warn(f"{MESSAGE} ({operation})", stacklevel=3)


def note_operation(packet: object, tensors_on_device: list[torch.Tensor], tensors_on_host: list[torch.Tensor]) -> None:
    """What an operation other than a copy waits for."""
    masks = [tensor for tensor in tensors_on_device if tensor.dtype in (torch.bool, torch.uint8)]
    if packet in _DATA_DEPENDENT or (packet in INDEXING and (tensors_on_host or masks)):
        note(str(packet))


def set_sync_debug_mode(mode: str | int) -> None:
    """As ``torch.cuda.set_sync_debug_mode``."""
    global _mode
    _mode = mode if isinstance(mode, str) else ("default", "warn", "error")[mode]


def set_capturing(on: bool) -> None:
    """While a graph is captured nothing may be waited for, by the thread that captures it."""
    global _capturing
    _capturing = threading.get_ident() if on else None


def is_capturing() -> bool:
    """Whether this thread captures a graph: ``thread_local``, as the engine asks for."""
    return _capturing == threading.get_ident()
