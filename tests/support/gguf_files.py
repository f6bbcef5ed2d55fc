"""GGUF files written by hand, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectrum_fast.read.checkpoint.dtypes import BLOCK_TYPES, DTYPE_BITS

NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q4_K": 12}
NUMBERS |= {"Q5_K": 13, "Q6_K": 14, "BF16": 30}
LLAMA = {"general.architecture": "llama", "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}

Value = int | float | bool | str | list[str] | list[int]


@dataclass
class GgufTensor:
    """One tensor of a file: extents row-major; ``offset`` None for where it belongs."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    offset: int | None = None


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    elements, size = BLOCK_TYPES.get(dtype) or (8, DTYPE_BITS[dtype])
    return int(np.prod(shape)) // elements * size


def random_tensor(name: str, dtype: str, shape: tuple[int, ...], seed: int = 0) -> GgufTensor:
    """Numbers of a moderate size: the float16 scales of packed blocks are finite."""
    generator = np.random.default_rng(seed)
    if dtype == "F32":
        return GgufTensor(name, dtype, shape, generator.standard_normal(shape).astype("<f4").tobytes())
    data = generator.integers(0, 256, nbytes_of(dtype, shape), dtype=np.uint8)
    if dtype in ("F16", "BF16"):
        data[1::2] = data[1::2] & 0xBF | 0x30  # exponents far from the ends
    else:
        blocks = data.reshape(-1, BLOCK_TYPES[dtype][1])
        for place in {"Q6_K": [209], "Q2_K": [81, 83]}.get(
            dtype, [1, 3] if dtype not in ("Q4_0", "Q5_0", "Q8_0") else [1]
        ):
            blocks[:, place] = blocks[:, place] & 0x83 | 0x2C
    return GgufTensor(name, dtype, shape, data.tobytes())


def write_gguf(
    tensors: Sequence[GgufTensor],
    entries: Mapping[str, Value] | None = None,
    *,
    alignment: int = 32,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """The bytes of a file; ``counts`` are claimed in place of the true numbers of tensors and entries."""
    said = dict(entries or {}) | ({"general.alignment": alignment} if alignment != 32 else {})
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(said))))
    for key, value in said.items():
        head += text(key) + _value(value)
    data, place = b"", 0
    for tensor in tensors:
        data += bytes(-len(data) % alignment)
        place = len(data) if tensor.offset is None else tensor.offset
        head += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
        head += struct.pack("<IQ", NUMBERS.get(tensor.dtype, 4), place)
        data += tensor.data
    return head + bytes(-len(head) % alignment) + data + bytes(-len(data) % alignment)


def text(words: str) -> bytes:
    raw = words.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if all(isinstance(entry, str) for entry in value):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(str(entry)) for entry in value)
    return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
