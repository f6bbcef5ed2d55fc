"""The header of a safetensors file, parsed and checked before anything is allocated for its tensors.

Layout of a file (source: the format description in the safetensors repository's README): eight bytes, a little-endian
unsigned length N; N bytes of JSON beginning with ``{`` and possibly padded with spaces; the tensors' bytes. The JSON
maps a tensor's name to ``{"dtype": ..., "shape": [...], "data_offsets": [begin, end]}`` with offsets counted from the
end of the header, and ``__metadata__`` to an object of strings. The tensors must cover the data exactly.

This parser takes nothing that the library refuses, and refuses more: duplicate names, unknown fields, white space
before the opening brace, extents beyond 63 bits.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from operator import le
from pathlib import Path
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.dtypes import DTYPE_BITS
from spectrum_fast.read.checkpoint.json_cursor import JsonCursor, JsonError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import (
    Address,
    RemoteFile,
    Stamp,
    StoredFile,
    open_stored_file,
    read_bytes,
    read_failure,
)
from spectrum_fast.read.storage.files import shorten

MAX_HEADER_BYTES = 100_000_000
"""Longest header accepted, the limit of the safetensors library."""

MAX_TENSORS = 1 << 18
"""Most tensors in one file. The largest published models hold 140,000 in all, a few thousand a file; a record a tensor
takes some 400 bytes, so that a header of a million would take more memory than a scan."""

MAX_NAME_BYTES = 1 << 16
"""Longest tensor name accepted, in stored bytes; real names stay under 200."""

MAX_DIMENSIONS = 64
"""Most extents a tensor may have: torch's own limit."""

MAX_COUNT = 2**63 - 1
"""Largest extent and largest product of extents: what a signed 64-bit size can hold."""

_MAX_METADATA_ENTRIES = 10_000
_MAX_METADATA_KEPT_BYTES = 1 << 20
_SHAPE_CACHE_SIZE = 4096
# The form that writers produce, white space included, so that 100,000 tensors take a moment. Anything else, such as
# another order of the fields or an escape in a name, goes through the cursor.
_USUAL_ENTRY = re.compile(
    rb"""
    "([^"\\\x00-\x1f]{1,512})" W : W
    { W "dtype" W : W "([A-Z0-9_]{1,16})" W , W "shape" W : W \[ ((?: W N (?: W , W N ){0,7} )? ) W \] W ,
      W "data_offsets" W : W \[ W (N) W , W (N) W \] W } W
    (?: , W (?=") | (?=}) )
    """.replace(b"W", rb"[ \t\r\n]{0,40}").replace(b"N", rb"(?:0|[1-9][0-9]{0,17})"),
    re.VERBOSE,
)


@dataclass(frozen=True)
class Header:
    """What a safetensors or GGUF file says about itself, checked.

    Attributes:
        path: the file.
        tensors: one record a tensor, by ascending offset.
        metadata: the ``__metadata__`` strings; the values past 64 KiB each or 1 MiB in all are checked and dropped. Of
            a GGUF file, its entries.
        data_begin: absolute offset of the first byte after the header.
        digest: SHA-256 of the length field and the header, hexadecimal.
        stamp: state of the file when it was read.
    """

    path: Address
    tensors: tuple[TensorRef, ...]
    metadata: dict[str, Any]
    data_begin: int
    digest: str
    stamp: Stamp


@dataclass(slots=True)
class Entries:
    """The tensors as they stand in a header, one list a field; begins and ends count from the end of the header."""

    names: list[str]
    dtypes: list[str]
    shapes: list[tuple[int, ...]]
    begins: list[int]
    ends: list[int]


def read_header(path: str | os.PathLike[str] | RemoteFile, stop: threading.Event | None = None) -> Header:
    """Read and check the header of one safetensors file.

    Time is linear in the header (about half a second for 100,000 tensors on one core), memory the header's bytes plus
    the records that are returned. Nothing of the tensors' data is read.

    Args:
        path: the file, or a remote address; symbolic links are followed.
        stop: once set, reading a remote file ends within a moment with an error.

    Returns:
        The header with absolute offsets.

    Raises:
        CheckpointError: the file cannot be read or is malformed; the message names file, tensor and what was expected.
    """
    path = path if isinstance(path, RemoteFile) else Path(path)
    file = open_stored_file(path, stop)
    stamp = file.stamp
    try:
        length, raw = _read_raw(path, file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {read_failure(error)}") from error
    finally:
        file.close()
    data_begin = 8 + length
    try:
        entries, metadata = _parse(raw)
    except JsonError as error:
        raise CheckpointError(f"{path}: broken safetensors header: {error}; download or save the file again") from error
    digest = hashlib.sha256(length.to_bytes(8, "little") + raw).hexdigest()
    return Header(path, locate_tensors(path, entries, data_begin, stamp), metadata, data_begin, digest, stamp)


def _read_raw(path: Address, file: StoredFile) -> tuple[int, bytes]:
    size_bytes = file.size_bytes
    if size_bytes < 8:
        raise CheckpointError(
            f"{path}: expected a safetensors file (8 bytes of header length, header, data), found only {size_bytes} "
            "bytes; the file is truncated or empty: download or save it again"
        )
    start = read_bytes(file, 9, 0)
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: header length {length} is over the limit of {MAX_HEADER_BYTES} bytes; this is not a safetensors "
            "file"
        )
    if length > size_bytes - 8:
        raise CheckpointError(
            f"{path}: header length {length} reaches past the end of the file ({size_bytes} bytes); "
            "the file is truncated: download or save it again"
        )
    if length < 2:
        raise CheckpointError(f"{path}: header length {length} is too short for a JSON object; save the file again")
    if start[8:9] != b"{":
        raise CheckpointError(
            f"{path}: expected a header that begins with "
            f"'{{', found byte {start[8]:#04x}; this is not a safetensors file"
        )
    raw = read_bytes(file, length, 8)
    if len(raw) != length:
        raise CheckpointError(f"{path}: ended inside its header: truncated or replaced while being read")
    return length, raw


def _parse(raw: bytes) -> tuple[Entries, dict[str, str]]:
    """Walk over the header; the offsets of each tensor are checked against its shape and type."""
    if raw.count(b'"data_offsets"') > MAX_TENSORS:  # before a record is made of any
        raise too_many_tensors()
    cursor = JsonCursor(raw)
    entries = Entries([], [], [], [], [])
    metadata: dict[str, str] | None = None
    seen: set[str] = set()
    shapes: dict[bytes, tuple[tuple[int, ...], int]] = {}
    dtypes = {name.encode(): (name, bits) for name, bits in DTYPE_BITS.items()}
    add_name, add_dtype, add_shape = entries.names.append, entries.dtypes.append, entries.shapes.append
    add_begin, add_end = entries.begins.append, entries.ends.append

    cursor.expect(b"{", "the header (an object)")
    if cursor.take(b"}"):
        cursor.end()
        return entries, {}
    while True:
        usual = _USUAL_ENTRY.match(raw, cursor.position)
        key = usual.group(1) if usual is not None else b""
        if usual is not None and key != b"__metadata__":
            _, dtype_bytes, shape_bytes, begin_bytes, end_bytes = usual.groups()
            try:
                name = key.decode("utf-8")
            except UnicodeError as error:
                raise JsonError(f"a tensor's name at byte {cursor.position} is not valid UTF-8") from error
            dtype = dtypes.get(dtype_bytes)
            if dtype is None:
                raise _unknown_dtype(name, dtype_bytes.decode("ascii"))
            known = shapes.get(shape_bytes)
            if known is None:
                shape = tuple(int(extent) for extent in shape_bytes.split(b",")) if shape_bytes else ()
                known = (shape, count_elements(name, shape))
                if len(shapes) < _SHAPE_CACHE_SIZE:
                    shapes[shape_bytes] = known
            shape, count = known
            begin, end = int(begin_bytes), int(end_bytes)
            cursor.position = usual.end()
            more = not raw.startswith(b"}", cursor.position)
            if not more:
                cursor.position += 1
        else:
            name = cursor.string("a tensor's name", MAX_NAME_BYTES)
            cursor.expect(b":", f"':' after {shorten(name)}")
            if name == "__metadata__":
                if metadata is not None:
                    raise JsonError("__metadata__ occurs twice")
                metadata = _parse_metadata(cursor)
                if _next_member(cursor):
                    continue
                break
            dtype, shape, begin, end = _parse_entry(cursor, name)
            count = count_elements(name, shape)
            more = _next_member(cursor)
        if not name.isprintable():
            raise unprintable(name, len(seen) + 1)
        if name in seen:
            raise JsonError(f"tensor {shorten(name)} occurs twice")
        seen.add(name)
        if len(seen) > MAX_TENSORS:  # their fields were spelt with escapes
            raise too_many_tensors()
        if end < begin or (end - begin) * 8 != count * dtype[1]:
            raise _wrong_size(name, dtype, shape, count, begin, end)
        add_name(name)
        add_dtype(dtype[0])
        add_shape(shape)
        add_begin(begin)
        add_end(end)
        if not more:
            break
    cursor.end()
    return entries, metadata or {}


def _next_member(cursor: JsonCursor) -> bool:
    if cursor.take(b","):
        cursor.skip_space()
        return True
    cursor.expect(b"}", "',' or '}' in the header")
    return False


def _parse_metadata(cursor: JsonCursor) -> dict[str, str]:
    kept: dict[str, str] = {}
    kept_bytes = 0
    seen: set[str] = set()
    for key in cursor.keys("__metadata__", MAX_NAME_BYTES):
        if key in seen:
            raise JsonError(f"key {shorten(key)} occurs twice in __metadata__")
        if len(seen) == _MAX_METADATA_ENTRIES:
            raise JsonError(f"__metadata__ has more than {_MAX_METADATA_ENTRIES} entries")
        seen.add(key)
        value = cursor.string_or_none(f"the value of {shorten(key)} in __metadata__", MAX_NAME_BYTES)
        if value is not None and kept_bytes + len(value) <= _MAX_METADATA_KEPT_BYTES:
            kept[key] = value
            kept_bytes += len(value)
    return kept


def _parse_entry(cursor: JsonCursor, name: str) -> tuple[tuple[str, int], tuple[int, ...], int, int]:
    shown = f"tensor {shorten(name)}"
    dtype: tuple[str, int] | None = None
    shape: tuple[int, ...] | None = None
    offsets: list[int] | None = None
    seen: set[str] = set()
    for key in cursor.keys(shown, 256):
        if key in seen:
            raise JsonError(f"{shown} has the field {key!r} twice")
        seen.add(key)
        if key == "dtype":
            text = cursor.string(f"dtype of {shown}", 64)
            if text not in DTYPE_BITS:
                raise _unknown_dtype(name, text)
            dtype = (text, DTYPE_BITS[text])
        elif key == "shape":
            shape = tuple(cursor.integers(f"shape of {shown}", MAX_DIMENSIONS))
        elif key == "data_offsets":
            offsets = cursor.integers(f"data_offsets of {shown}", 2)
        else:
            raise JsonError(f"{shown} has an unknown field {shorten(key)}; expected dtype, shape and data_offsets")
    if dtype is None or shape is None or offsets is None:
        missing = {"dtype", "shape", "data_offsets"} - seen
        raise JsonError(f"{shown} lacks {', '.join(sorted(missing))}")
    if len(offsets) != 2:
        raise JsonError(f"{shown}: data_offsets must be [begin, end], found {offsets}")
    return dtype, shape, offsets[0], offsets[1]


def count_elements(name: str, shape: tuple[int, ...]) -> int:
    """Product of the extents; the extents other than 0 must not overflow either."""
    count, bound = 1, 1
    for extent in shape:
        count *= extent
        bound *= extent or 1
        if bound > MAX_COUNT:
            raise JsonError(f"tensor {shorten(name)}: shape {list(shape)} overflows 63 bits")
    return count


def unprintable(name: str, number: int) -> JsonError:
    """Names go into files that trainers execute and onto terminals, where a line break or an escape code would act."""
    place = next(i for i, character in enumerate(name) if not character.isprintable())
    return JsonError(
        f"tensor {number}, {shorten(name)}: expected a name of printable characters, found {name[place]!r} as its "
        f"character {place + 1}"
    )


def too_many_tensors() -> JsonError:
    """More than :data:`MAX_TENSORS` of them."""
    return JsonError(f"it names more than {MAX_TENSORS} tensors, which no published model comes near")


def _unknown_dtype(name: str, text: str) -> JsonError:
    return JsonError(
        f"tensor {shorten(name)} has the unknown dtype {shorten(text)}; expected one of {', '.join(DTYPE_BITS)}"
    )


def _wrong_size(
    name: str, dtype: tuple[str, int], shape: tuple[int, ...], count: int, begin: int, end: int
) -> JsonError:
    shown = f"tensor {shorten(name)}"
    if end < begin:
        return JsonError(f"{shown}: data_offsets [{begin}, {end}] end before they begin")
    bits = count * dtype[1]
    if bits % 8:
        return JsonError(f"{shown}: shape {list(shape)} of {dtype[0]} is {bits} bits, not a whole number of bytes")
    return JsonError(
        f"{shown}: shape {list(shape)} of {dtype[0]} needs {bits // 8} bytes, data_offsets [{begin}, {end}] hold "
        f"{end - begin}"
    )


def locate_tensors(
    path: Address, entries: Entries, data_begin: int, stamp: Stamp, alignment: int = 1
) -> tuple[TensorRef, ...]:
    """Make sure that the tensors tile the data exactly; return them by ascending offset.

    Args:
        path: the file.
        entries: its tensors.
        data_begin: absolute offset of the first byte after the header.
        stamp: state of the file.
        alignment: each tensor begins at the next multiple of it after the one before, counted from ``data_begin``.

    Raises:
        CheckpointError: there are gaps or overlaps, or the file ends before the tensors or goes on after them.
    """
    begins, ends, data_bytes = entries.begins, entries.ends, max(0, stamp.size_bytes - data_begin)
    order: list[int] | range = range(len(begins))
    if not (all(map(le, begins, begins[1:])) and all(map(le, ends, ends[1:]))):
        order = sorted(order, key=lambda i: (begins[i], ends[i]))
    covered, last = 0, -1
    for i in order:
        begin, end = begins[i], ends[i]
        if begin != (covered := -(-covered // alignment) * alignment):
            name = shorten(entries.names[i])
            if begin > covered:
                raise CheckpointError(
                    f"{path}: {begin - covered} bytes before tensor {name} (data offsets {covered} to {begin}) belong "
                    "to no tensor; the header does not match the data: save the file again"
                )
            raise CheckpointError(
                f"{path}: tensors {shorten(entries.names[last])} and {name} overlap (data offset {begin} is before "
                f"{covered}); save the file again"
            )
        if end > data_bytes:
            raise CheckpointError(
                f"{path}: tensor {shorten(entries.names[i])} ends at data offset {end}, but the file holds "
                f"{data_bytes} bytes of data; the file is truncated: download or save it again"
            )
        covered, last = end, i
    if data_bytes - covered >= alignment:
        raise CheckpointError(
            f"{path}: {data_bytes - covered} trailing bytes after the last tensor belong to no tensor; "
            "the file was appended to or its header is wrong: save it again"
        )
    return tuple(
        TensorRef(
            entries.names[i],
            path,
            entries.dtypes[i],
            entries.shapes[i],
            data_begin + begins[i],
            ends[i] - begins[i],
            stamp,
        )
        for i in order
    )
