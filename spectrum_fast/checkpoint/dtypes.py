"""Storage types of safetensors: their sizes, and which of them are decoded.

torch is imported only where a torch type is asked for, so that reading headers stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.checkpoint.files import shorten
from spectrum_fast.checkpoint.tensor_ref import TensorRef
from spectrum_fast.errors import UnsupportedDtypeError

if TYPE_CHECKING:
    import torch

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits an element of each storage type.

Source: the ``Dtype`` enumeration of the safetensors library 0.8.0 (``safetensors/src/tensor.rs``); the tests open a
file of every type with that library.
"""

_TORCH_NAMES: dict[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

SUPPORTED_DTYPES: tuple[str, ...] = tuple(_TORCH_NAMES)
"""Storage types that are decoded."""


def decodable(dtype: str) -> bool:
    """Say whether a tensor of this storage type can be loaded as numbers.

    >>> decodable("BF16"), decodable("F8_E4M3")
    (True, False)
    """
    return dtype in _TORCH_NAMES


def require_decodable(ref: TensorRef) -> None:
    """Refuse a tensor whose storage type is not decoded.

    Raises:
        UnsupportedDtypeError: names the tensor, its file, its type and the supported ones.
    """
    if not decodable(ref.dtype):
        raise _unsupported(ref.dtype, ref.name, ref.file)


def torch_dtype(ref: TensorRef) -> torch.dtype:
    """Give the torch type of a tensor's elements.

    Raises:
        UnsupportedDtypeError: the storage type is not decoded.
    """
    import torch

    require_decodable(ref)
    return getattr(torch, _TORCH_NAMES[ref.dtype])


def _unsupported(dtype: str, name: str, file: Path) -> UnsupportedDtypeError:
    return UnsupportedDtypeError(
        f"tensor {shorten(name)} in {file}: expected one of {', '.join(SUPPORTED_DTYPES)}, found {shorten(dtype)}, "
        "which this version does not decode; exclude the tensor or convert the checkpoint to one of those types"
    )
