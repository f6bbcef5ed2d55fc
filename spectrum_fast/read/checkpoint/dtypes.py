"""Storage types of safetensors: their sizes, which of them are numbers, and which may be codes of a packed weight.

torch is imported only where a torch type is asked for, so that reading headers stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage.files import shorten

if TYPE_CHECKING:
    import torch

DTYPE_BITS: dict[str, int] = {
    dtype: bits
    for bits, dtypes in (
        (4, "F4"),
        (6, "F6_E2M3 F6_E3M2"),
        (8, "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ"),
        (16, "I16 U16 F16 BF16"),
        (32, "I32 U32 F32"),
        (64, "C64 F64 I64 U64"),
    )
    for dtype in dtypes.split()
}
"""Bits an element of each storage type.

Source: the ``Dtype`` enumeration of the safetensors library 0.8.0 (``safetensors/src/tensor.rs``); the tests open a
file of every type with that library.
"""

BLOCK_TYPES: dict[str, tuple[int, int]] = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 40),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q1_0": (128, 18),
}
"""Elements and bytes of a block of each packed storage type of GGUF, along the last extent.

Source: ggml's block structures (``ggml-common.h``); the tests compare with the ``gguf`` package.
"""

_NUMBERS: dict[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Storage types whose elements are numbers as they stand -> torch's names."""

_STORED: dict[str, str] = _NUMBERS | {
    "U8": "uint8",
    "I8": "int8",
    "I32": "int32",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    **dict.fromkeys(BLOCK_TYPES, "uint8"),
}


def decodable(dtype: str) -> bool:
    """Say whether a tensor of this storage type holds numbers that need no scale.

    >>> decodable("BF16"), decodable("F8_E4M3")
    (True, False)
    """
    return dtype in _NUMBERS


def require_decodable(ref: TensorRef) -> None:
    """Refuse a tensor whose storage type is not decoded.

    Raises:
        UnsupportedDtypeError: names the tensor, its file, its type and the supported ones.
    """
    _torch_name(ref, _NUMBERS)


def storage_dtype(ref: TensorRef) -> torch.dtype:
    """Give the torch type that holds a tensor's bytes, for codes and their companions as well as for plain numbers.

    Raises:
        UnsupportedDtypeError: no decoder takes this storage type.
    """
    import torch

    return getattr(torch, _torch_name(ref, _STORED))


def storage_name(dtype: torch.dtype) -> str:
    """The name that safetensors has for a torch type, or torch's own name where it has none.

    >>> import torch
    >>> storage_name(torch.bfloat16), storage_name(torch.quint8)
    ('BF16', 'quint8')
    """
    name = str(dtype).removeprefix("torch.")
    return next((key for key, known in _STORED.items() if known == name), name)


def _torch_name(ref: TensorRef, known: Mapping[str, str]) -> str:
    if ref.dtype not in known:
        raise UnsupportedDtypeError(
            f"{ref}: expected one of {', '.join(_NUMBERS)}, found {shorten(ref.dtype)}, which this version does not "
            "decode; exclude the tensor or convert the checkpoint to one of those types"
        )
    return known[ref.dtype]
