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
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.dtypes import DTYPE_BITS
from spectrum_fast.read.checkpoint.json_cursor import JsonCursor, JsonError
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.storage import Address, Stamp, StoredFile, opened, read_bytes
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
_MOST_INTEGERS = {"shape": MAX_DIMENSIONS, "data_offsets": 2}
# The form that writers produce, white space included, so that 100,000 tensors take a moment. Anything else, such as
# another order of the fields, goes through the cursor.
_USUAL_FIELDS = re.compile(
    rb"""
    W { W "dtype" W : W "([A-Z0-9_]{1,16})" W , W "shape" W : W \[ ((?: W N (?: W , W N ){0,7} )? ) W \] W ,
    W "data_offsets" W : W \[ W (N) W , W (N) W \] W }
    """.replace(b"W", rb"[ \t\r\n]{0,40}").replace(b"N", rb"(?:0|[1-9][0-9]{0,17})"),
    re.VERBOSE,
)


@dataclass(frozen=True)
class Header:
    """What a safetensors or GGUF file says about itself, checked.

    Attributes:
        path: the file.
        tensors: one record a tensor, by ascending offset.
        metadata: the entries of a GGUF file; of a safetensors file nothing, since its ``__metadata__`` is only checked.
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


def read_header(path: Address, stop: threading.Event | None = None) -> Header:
    """Read and check the header of one safetensors file.

    Time is linear in the header (0.7 s for 100,000 tensors on one core), memory the header's bytes plus
    the records that are returned. Nothing of the tensors' data is read.

    Args:
        path: the file, or a remote address; symbolic links are followed.
        stop: once set, reading a remote file ends within a moment with an error.

    Returns:
        The header with absolute offsets.

    Raises:
        CheckpointError: the file cannot be read or is malformed; the message names file, tensor and what was expected.
    """
    with opened(path, stop) as file:
        stamp = file.stamp
        raw = _read_raw(path, file)
    try:
        tensors = _parse(raw, path, stamp)
    except JsonError as error:
        raise CheckpointError(f"{path}: broken safetensors header: {error}; download or save the file again") from error
    digest = hashlib.sha256(len(raw).to_bytes(8, "little") + raw).hexdigest()
    data_begin = 8 + len(raw)
    return Header(path, in_order(path, tensors, data_begin, stamp), {}, data_begin, digest, stamp)


def _read_raw(path: Address, file: StoredFile) -> bytes:
    size_bytes = file.stamp.size_bytes
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
    return raw


def _parse(raw: bytes, path: Address, stamp: Stamp) -> list[TensorRef]:
    """Walk over the header; the offsets of each tensor are checked against its shape and type."""
    if raw.count(b'"data_offsets"') > MAX_TENSORS:  # before a record is made of any
        raise too_many_tensors()
    cursor = JsonCursor(raw)
    data_begin = 8 + len(raw)
    tensors: list[TensorRef] = []
    seen: set[str] = set()
    for name in cursor.keys("the header", MAX_NAME_BYTES):
        if name == "__metadata__":
            if name in seen:
                raise JsonError("__metadata__ occurs twice")
            seen.add(name)
            for place, key in enumerate(cursor.keys("__metadata__", MAX_NAME_BYTES)):
                if place == _MAX_METADATA_ENTRIES:
                    raise JsonError(f"__metadata__ has more than {_MAX_METADATA_ENTRIES} entries")
                cursor.skip_string(f"the value of {shorten(key)} in __metadata__")
            continue
        usual = _USUAL_FIELDS.match(raw, cursor.position)
        if usual is None:
            dtype, shape, begin, end = _parse_entry(cursor, name)
        else:
            cursor.position = usual.end()
            dtype, shape = usual[1].decode("ascii"), _read_shape(usual[2])
            begin, end = int(usual[3]), int(usual[4])
        take_name(name, len(tensors) + 1, seen)
        if len(tensors) == MAX_TENSORS:  # their fields were spelt with escapes
            raise too_many_tensors()
        _check_size(name, dtype, shape, begin, end)
        tensors.append(TensorRef(name, path, dtype, shape, data_begin + begin, end - begin, stamp))
    cursor.end()
    return tensors


@lru_cache(maxsize=4096)
def _read_shape(text: bytes) -> tuple[int, ...]:
    """Extents as they are written; tensors of one shape share them."""
    return tuple(int(extent) for extent in text.split(b",")) if text else ()


def _parse_entry(cursor: JsonCursor, name: str) -> tuple[str, tuple[int, ...], int, int]:
    shown = f"tensor {shorten(name)}"
    found: dict[str, Any] = {}
    for key in cursor.keys(shown, 256):
        if key in found:
            raise JsonError(f"{shown} has the field {key!r} twice")
        if key == "dtype":
            found[key] = cursor.string(f"dtype of {shown}", 64)
        elif key in _MOST_INTEGERS:
            found[key] = cursor.integers(f"{key} of {shown}", _MOST_INTEGERS[key])
        else:
            raise JsonError(f"{shown} has an unknown field {shorten(key)}; expected dtype, shape and data_offsets")
    if missing := {"dtype", *_MOST_INTEGERS} - found.keys():
        raise JsonError(f"{shown} lacks {', '.join(sorted(missing))}")
    offsets = found["data_offsets"]
    if len(offsets) != 2:
        raise JsonError(f"{shown}: data_offsets must be [begin, end], found {offsets}")
    return found["dtype"], tuple(found["shape"]), offsets[0], offsets[1]


def count_elements(name: str, shape: tuple[int, ...]) -> int:
    """Product of the extents; the extents other than 0 must not overflow either."""
    count, bound = 1, 1
    for extent in shape:
        count *= extent
        bound *= extent or 1
        if bound > MAX_COUNT:
            raise JsonError(f"tensor {shorten(name)}: shape {list(shape)} overflows 63 bits")
    return count


def take_name(name: str, number: int, seen: set[str]) -> None:
    """Add the name of the tensor of this number to those that were seen.

    Names go into files that trainers execute and onto terminals, where a line break or an escape code would act.

    Raises:
        JsonError: it does not print, or was seen before.
    """
    if not name.isprintable():
        place = next(i for i, character in enumerate(name) if not character.isprintable())
        raise JsonError(
            f"tensor {number}, {shorten(name)}: expected a name of printable characters, found {name[place]!r} as its "
            f"character {place + 1}"
        )
    if name in seen:
        raise JsonError(f"tensor {shorten(name)} occurs twice")
    seen.add(name)


def too_many_tensors() -> JsonError:
    """More than :data:`MAX_TENSORS` of them."""
    return JsonError(f"it names more than {MAX_TENSORS} tensors, which no published model comes near")


def _check_size(name: str, dtype: str, shape: tuple[int, ...], begin: int, end: int) -> None:
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise JsonError(
            f"tensor {shorten(name)} has the unknown dtype {shorten(dtype)}; expected one of {', '.join(DTYPE_BITS)}"
        )
    bits *= count_elements(name, shape)
    if end >= begin and (end - begin) * 8 == bits:
        return
    shown = f"tensor {shorten(name)}"
    if end < begin:
        raise JsonError(f"{shown}: data_offsets [{begin}, {end}] end before they begin")
    if bits % 8:
        raise JsonError(f"{shown}: shape {list(shape)} of {dtype} is {bits} bits, not a whole number of bytes")
    raise JsonError(
        f"{shown}: shape {list(shape)} of {dtype} needs {bits // 8} bytes, data_offsets [{begin}, {end}] hold "
        f"{end - begin}"
    )


def in_order(
    path: Address, tensors: Iterable[TensorRef], data_begin: int, stamp: Stamp, alignment: int = 1
) -> tuple[TensorRef, ...]:
    """Make sure that the tensors of a file tile its data exactly; return them by ascending offset.

    Each begins at the next multiple of ``alignment`` after the one before, counted from ``data_begin``.

    Raises:
        CheckpointError: there are gaps or overlaps, or the file ends before the tensors or goes on after them.
    """
    ordered = sorted(tensors, key=lambda ref: (ref.begin, ref.nbytes))
    data_bytes = max(0, stamp.size_bytes - data_begin)
    covered, last = 0, ""
    for ref in ordered:
        begin = ref.begin - data_begin
        end = begin + ref.nbytes
        if begin != (covered := -(-covered // alignment) * alignment):
            if begin > covered:
                raise CheckpointError(
                    f"{path}: {begin - covered} bytes before tensor {shorten(ref.name)} (data offsets {covered} to "
                    f"{begin}) belong to no tensor; the header does not match the data: save the file again"
                )
            raise CheckpointError(
                f"{path}: tensors {shorten(last)} and {shorten(ref.name)} overlap (data offset {begin} is before "
                f"{covered}); save the file again"
            )
        if end > data_bytes:
            raise CheckpointError(
                f"{path}: tensor {shorten(ref.name)} ends at data offset {end}, but the file holds "
                f"{data_bytes} bytes of data; the file is truncated: download or save it again"
            )
        covered, last = end, ref.name
    if data_bytes - covered >= alignment:
        raise CheckpointError(
            f"{path}: {data_bytes - covered} trailing bytes after the last tensor belong to no tensor; "
            "the file was appended to or its header is wrong: save it again"
        )
    return tuple(ordered)
