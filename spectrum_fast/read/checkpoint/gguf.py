"""The header of a GGUF file, parsed and checked before anything is allocated for its tensors.

Layout of a file, little-endian (source: ggml's ``docs/gguf.md``): ``GGUF``, uint32 version, uint64 number of tensors,
uint64 number of entries; the entries, each a string (uint64 length, UTF-8), uint32 type, value; for each tensor its
name, uint32 number of extents, the extents as uint64 with the contiguous one first, uint32 type, uint64 offset; then,
at the next multiple of ``general.alignment`` (32 where it is not said), the data, in which every tensor begins at the
next such multiple.

This parser takes nothing that ggml refuses, and refuses more: gaps between tensors, bytes after the last one, names
that do not print, arrays of arrays. The limits are those of safetensors headers.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from dataclasses import replace
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.dtypes import BLOCK_TYPES, DTYPE_BITS
from spectrum_fast.read.checkpoint.header import (
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    Header,
    count_elements,
    in_order,
    take_name,
    too_many_tensors,
)
from spectrum_fast.read.checkpoint.json_cursor import JsonError as HeaderError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address, Stamp, StoredFile, opened, read_bytes
from spectrum_fast.read.storage.files import shorten

SUFFIX = ".gguf"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 10_000
_MAX_KEPT = 4096
"""Elements of the longest array of numbers that is kept; vocabularies are walked over."""
_MAX_EXTENTS = 4
_MAX_ALIGNMENT = 1 << 20
_STEP_BYTES = 1 << 20
_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S "
    "IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4 NVFP4 Q1_0"
)
"""Storage types by ggml's number; a dash where one was withdrawn."""
_TYPE_NUMBERS = {number: name for number, name in enumerate(_TYPES.split()) if name != "-"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, _BOOL, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""``struct``'s letter for each type of an entry."""


def read_gguf_header(path: Address, stop: threading.Event | None = None) -> Header:
    """Read and check the header of one GGUF file.

    Memory is the header's bytes (some ten megabytes, nearly all of them vocabulary) plus the records that are returned.

    Args:
        path: the file, or a remote address; symbolic links are followed.
        stop: once set, reading a remote file ends within a moment with an error.

    Returns:
        The header with absolute offsets, extents in row-major order, names as stored, and as ``metadata`` the entries
        that are numbers, strings of up to 64 KiB or arrays of up to 4096 numbers.

    Raises:
        CheckpointError: the file cannot be read or is malformed; the message names file, tensor and what was expected.
    """
    with opened(path, stop) as file:
        stamp, cursor = file.stamp, _Cursor(file)
        try:
            counts = _read_start(cursor)
            metadata = _read_metadata(cursor, counts[1])
            alignment = _alignment(metadata)
            entries = _read_entries(cursor, counts[0], path, stamp)
        except HeaderError as error:
            raise CheckpointError(f"{path}: broken GGUF header: {error}; download or save the file again") from error
    data_begin = -(-cursor.place // alignment) * alignment
    tensors = [replace(ref, begin=data_begin + ref.begin) for ref in entries]
    digest = hashlib.sha256(memoryview(cursor.raw)[: cursor.place]).hexdigest()
    return Header(path, in_order(path, tensors, data_begin, stamp, alignment), metadata, data_begin, digest, stamp)


class _Cursor:
    """A place in the bytes at the beginning of a file, which are read as they are asked for.

    Attributes:
        raw: all that was read.
        place: of the next byte to look at.
    """

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self.raw = bytearray()
        self.place = 0

    def take(self, count: int, what: str) -> bytes:
        """The next bytes."""
        begin = self.place
        self.skip(count, what)
        return bytes(self.raw[begin : self.place])

    def skip(self, count: int, what: str) -> None:
        """Walk over bytes, which are read where they are not yet."""
        self.place = end = self.place + count
        if end <= len(self.raw):
            return
        size, have = self._file.stamp.size_bytes, len(self.raw)
        if end > MAX_HEADER_BYTES:
            raise HeaderError(f"{what} would end at byte {end}, past the limit of {MAX_HEADER_BYTES}")
        if end > size:
            raise HeaderError(f"{what} would end at byte {end}, but the file has {size}: it is truncated")
        wanted = min(max(end, have + _STEP_BYTES), size, MAX_HEADER_BYTES)
        self.raw += read_bytes(self._file, wanted - have, have)
        if len(self.raw) < end:
            raise HeaderError("it ended inside its header: truncated or replaced while being read")

    def number(self, letter: str, what: str) -> Any:
        """A number of one of ``struct``'s types."""
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(letter), what))[0]

    def text(self, what: str) -> str:
        """A string that is kept: no longer than names may be."""
        length = self.number("Q", what)
        if length > MAX_NAME_BYTES:
            raise HeaderError(f"{what}: expected at most {MAX_NAME_BYTES} bytes, found a length of {length}")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeError as error:
            raise HeaderError(f"{what} at byte {self.place - length} is not valid UTF-8") from error


def _read_start(cursor: _Cursor) -> tuple[int, int]:
    """Numbers of tensors and of entries."""
    magic = cursor.take(4, "the mark GGUF")
    if magic != b"GGUF":
        raise HeaderError(f"expected the mark GGUF, found {magic!r}")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        kind = "a big-endian file" if version & 0xFFFF == 0 else f"version {version}"
        raise HeaderError(f"expected version 2 or 3, little-endian, found {kind}")
    tensors, entries = (cursor.number("Q", "the counts") for _ in range(2))
    if tensors > MAX_TENSORS:
        raise too_many_tensors()
    if entries > _MAX_ENTRIES:
        raise HeaderError(f"it has {entries} entries, more than {_MAX_ENTRIES}")
    return tensors, entries


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    seen: set[str] = set()
    for _ in range(count):
        key = cursor.text("the name of an entry")
        shown = f"entry {shorten(key)}"
        if key in seen:
            raise HeaderError(f"{shown} occurs twice")
        seen.add(key)
        kind = cursor.number("I", shown)
        if kind == _STRING:
            length = cursor.number("Q", shown)
            if length > MAX_NAME_BYTES:  # a chat template may be long, and is nothing that is used here
                cursor.skip(length, shown)
            else:
                kept[key] = cursor.take(length, shown).decode("utf-8", "replace")
        elif kind == _ARRAY:
            if (values := _read_array(cursor, shown)) is not None:
                kept[key] = values
        else:
            kept[key] = cursor.number(_letter(kind, shown), shown)
    return kept


def _read_array(cursor: _Cursor, shown: str) -> list[Any] | None:
    """The numbers of an array; None where it is long, or one of strings."""
    kind, count = cursor.number("I", shown), cursor.number("Q", shown)
    if kind == _STRING:
        for _ in range(count):  # each takes eight bytes at least, so that the file's length ends this
            cursor.skip(cursor.number("Q", shown), shown)
        return None
    letter = _letter(kind, shown)
    if count > _MAX_KEPT:
        cursor.skip(count * struct.calcsize(letter), shown)
        return None
    return list(struct.unpack(f"<{count}{letter}", cursor.take(count * struct.calcsize(letter), shown)))


def _letter(kind: int, shown: str) -> str:
    if kind not in _SCALARS:
        raise HeaderError(f"{shown} has the unknown type {kind}")
    return _SCALARS[kind]


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise HeaderError(f"general.alignment: expected a power of two up to {_MAX_ALIGNMENT}, found {alignment!r}")
    return alignment


def _read_entries(cursor: _Cursor, count: int, path: Address, stamp: Stamp) -> list[TensorRef]:
    """The tensors, their offsets counted from the end of the header."""
    entries: list[TensorRef] = []
    seen: set[str] = set()
    for number in range(1, count + 1):
        name = cursor.text(f"the name of tensor {number}")
        shown = f"tensor {shorten(name)}"
        take_name(name, number, seen)
        extents = cursor.number("I", shown)
        if extents > _MAX_EXTENTS:
            raise HeaderError(f"{shown}: expected at most {_MAX_EXTENTS} extents, found {extents}")
        shape = tuple(reversed([cursor.number("Q", shown) for _ in range(extents)]))
        kind, begin = cursor.number("I", shown), cursor.number("Q", shown)
        dtype = _TYPE_NUMBERS.get(kind)
        if dtype is None:
            raise HeaderError(f"{shown} has storage type {kind}, which this version does not know")
        entries.append(TensorRef(name, path, dtype, shape, begin, _nbytes(shown, name, dtype, shape), stamp))
    return entries


def _nbytes(shown: str, name: str, dtype: str, shape: tuple[int, ...]) -> int:
    count = count_elements(name, shape)
    if dtype not in BLOCK_TYPES:
        return count * DTYPE_BITS[dtype] // 8
    elements, nbytes = BLOCK_TYPES[dtype]
    if not shape or shape[-1] % elements:
        raise HeaderError(f"{shown}: {dtype} comes in blocks of {elements} along the last extent, found shape {shape}")
    return count // elements * nbytes
