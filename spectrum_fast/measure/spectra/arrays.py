"""One text for the few hundred numbers of a matrix between its kernels: NumPy arrays on a CPU, torch tensors elsewhere.

On a CPU an operation on so few numbers is the call alone: 1 us in NumPy, 5 to 10 in torch between two kernels. On a
device they stay where they are. An :data:`Array` is either; what both offer under one name is used as it is (operators,
``sum``, ``clip``, ``xp.where``, ``xp.sqrt``...), and here is what they name differently.

A row's results have the same bits beside other rows. Sums run along the last axis or over a few arrays, and nothing is
transposed, so that NumPy adds in one order for one row and for many; its vector loops for exp, log and arctan2 take a
remainder by the same code under a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any
"""A NumPy array or a torch tensor."""


def functions_of(array: Array) -> Any:
    """``numpy`` or ``torch``: the module whose functions take this array; called ``xp`` where it is used."""
    return torch if isinstance(array, Tensor) else np


def tensor_of(array: Array) -> Tensor:
    """As a tensor, of the same memory."""
    return array if isinstance(array, Tensor) else torch.from_numpy(array)


def in_form_of(array: Array, tensor: Tensor) -> Array:
    """A tensor as ``array`` is: itself, or as a NumPy array of the same memory."""
    return tensor if isinstance(array, Tensor) else tensor.numpy()


def pick(rows: Array, places: Array) -> Array:
    """Of each row the numbers at some places; the last axis is the row's."""
    if isinstance(rows, Tensor):
        return rows.gather(-1, places)
    begins = np.arange(0, rows.size, rows.shape[-1]).reshape(*rows.shape[:-1], 1)
    return rows.reshape(-1).take(places + begins)


def places_in(rows: Array, numbers: Array, *, right: bool = False) -> Array:
    """How many numbers of each ascending row (m, p) are less than each of its ``numbers`` (m, s); or no more."""
    if isinstance(rows, Tensor):
        return torch.searchsorted(rows, numbers.contiguous(), right=right)
    places: Any = np.empty(numbers.shape, np.int64)
    for found, row, wanted in zip(places, rows, numbers, strict=True):
        found[:] = row.searchsorted(wanted, "right" if right else "left")
    return places


def columns(*arrays: Array) -> Array:
    """Arrays of one shape beside each other, along a new last axis."""
    return functions_of(arrays[0]).concatenate([array[..., None] for array in arrays], -1)


def ascending(rows: Array) -> Array:
    """Each row sorted; the last axis is the row's."""
    return torch.sort(rows).values if isinstance(rows, Tensor) else np.sort(rows)


def complex_of(real: Array, imag: Array) -> Array:
    """Complex numbers of their parts."""
    if isinstance(real, Tensor):
        return torch.complex(real, imag)
    made: Any = np.empty(real.shape, np.complex128)
    made.real, made.imag = real, imag
    return made


def steps(count: int, beside: Array) -> Array:
    """The numbers 1 to ``count`` beside an array, float64."""
    if isinstance(beside, Tensor):
        return torch.arange(1, count + 1, dtype=torch.float64, device=beside.device)
    return _host_steps(count)


@cache
def _host_steps(count: int) -> Array:
    return np.arange(1.0, count + 1)


def to_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers of the host on the device; a plain ``torch.tensor`` there waits for all that is under way."""
    on_host = torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


def constants(numbers: tuple[float, ...], beside: Array) -> Array:
    """A few float64 numbers beside an array, made once and for all: a graph that is replayed finds them there."""
    return _constants(numbers, beside.device if isinstance(beside, Tensor) else None)


@cache
def _constants(numbers: tuple[float, ...], device: torch.device | None) -> Array:
    """They are waited for when they are made, so that every stream finds them."""
    if device is None:
        return np.array(numbers)
    made = to_device(numbers, torch.float64, device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return made
