"""What is fuzzed: every reader of a file that may come from a stranger, each with an oracle beside "does not crash".

A target takes bytes and returns; anything but the reader's own error class is a find. What a reader accepts must stand
up to an independent judge: the safetensors library for headers, Python's json for indexes, and for our own files the
round trip (what was read is written and read again, to the same record).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from spectrum_fast.choose.selection.formats import write_selection
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.choose.selection.scan_result import parse_scan
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import CheckpointError, ScanFileError, SelectionError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.checkpoint.gguf import read_gguf_header
from spectrum_fast.read.checkpoint.header import read_header
from spectrum_fast.read.checkpoint.index import read_index

from support.gguf_files import LLAMA, random_tensor, write_gguf

try:
    from gguf import GGUFReader
except ImportError:
    GGUFReader = None

_IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - a file system in memory, where there is one
_FOLDER = tempfile.TemporaryDirectory(prefix="spectrum-fast-fuzz-", dir=_IN_MEMORY)


@dataclass(frozen=True)
class Target:
    """One reader under test.

    Attributes:
        run: reads the bytes; raises only where something is wrong with the reader.
        seeds: inputs that it accepts, to start from.
        words: fragments worth inserting.
    """

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]


def fuzz_header(raw: bytes) -> None:
    """A safetensors file: accepted only if the library accepts it, and then read alike."""
    path = Path(_FOLDER.name, "m.safetensors")
    path.write_bytes(raw)
    try:
        header = read_header(path)
    except CheckpointError:
        return
    try:
        with safe_open(path, "pt") as theirs:
            names = set(theirs.keys())
            shapes = {name: (theirs.get_slice(name).get_shape(), theirs.get_slice(name).get_dtype()) for name in names}
    except SafetensorError as error:
        raise AssertionError(f"accepted what the library refuses: {error}") from error
    assert {ref.name: (list(ref.shape), ref.dtype) for ref in header.tensors} == shapes
    assert all(header.data_begin <= ref.begin <= ref.begin + ref.nbytes <= len(raw) for ref in header.tensors)


def fuzz_gguf(raw: bytes) -> None:
    """A GGUF file: accepted only if the gguf package accepts it, and then read alike; opened, or refused."""
    path = Path(_FOLDER.name, "m.gguf")
    path.write_bytes(raw)
    try:
        header = read_gguf_header(path)
    except CheckpointError:
        return
    assert all(header.data_begin <= ref.begin <= ref.begin + ref.nbytes <= len(raw) for ref in header.tensors)
    if GGUFReader is not None:
        theirs = {tensor.name: (tensor.data_offset, tensor.n_bytes) for tensor in GGUFReader(path).tensors}
        assert {ref.name: (ref.begin, ref.nbytes) for ref in header.tensors} == theirs
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError:
        return
    assert sum(ref.nbytes for ref in checkpoint.tensors) == sum(ref.nbytes for ref in header.tensors)


def fuzz_index(raw: bytes) -> None:
    """An index: shards are plain file names, and the map is the one that json reads."""
    path = Path(_FOLDER.name, "model.safetensors.index.json")
    path.write_bytes(raw)
    try:
        weight_map = read_index(path)
    except CheckpointError:
        return
    assert weight_map == json.loads(raw.decode("utf-8-sig"))["weight_map"]
    assert all("/" not in shard and shard not in ("", ".", "..") for shard in weight_map.values())


def fuzz_scan(raw: bytes) -> None:
    """A scan file, ours or published: what was read survives being written and read."""
    text = _as_text(raw)
    if text is None:
        return
    try:
        record = parse_scan(text, "snr_results_a-b.json")
    except ScanFileError:
        return
    again = parse_scan(format_scan(record), "again.json")
    assert again == record


def fuzz_selection(raw: bytes) -> None:
    """A selection in any format: what was read survives being written as our own file and read."""
    text = _as_text(raw)
    if text is None:
        return
    try:
        selection = parse_selection(text, "selection")
    except SelectionError:
        return
    again = parse_selection(write_selection(selection, "json"), "again.json")
    assert again == selection


def _as_text(raw: bytes) -> str | None:
    """What the file readers make of the bytes; broken UTF-8 they refuse before any parser sees it."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _framed(header: object, data: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


_HEADER_SEEDS = (
    _framed({}, b""),
    _framed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    _framed(
        {
            "__metadata__": {"format": "pt"},
            "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "b": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]},
            "c": {"dtype": "U8", "shape": [0, 7], "data_offsets": [26, 26]},
            "d": {"dtype": "F4", "shape": [4], "data_offsets": [26, 28]},
        },
        bytes(28),
    ),
)
_GGUF_SEEDS = (
    write_gguf([], {}),
    write_gguf([random_tensor("blk.0.attn_q.weight", "Q4_0", (8, 32))], LLAMA),
    write_gguf(
        [random_tensor("blk.1.ffn_up_exps.weight", "Q8_0", (2, 4, 32)), random_tensor("output.weight", "F16", (3, 5))],
        {"general.architecture": "qwen3moe", "t": ["a", "bc"], "n": [1, 2], "b": True, "f": 0.5},
        alignment=8,
        version=2,
    ),
)
_INDEX_SEEDS = (
    b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}',
    b'{"metadata": {"total_size": 12}, "weight_map": {"a.weight": "x.safetensors"}}',
)
_OWN_SCAN = (
    b'{"schema": 1, "model": "m", "criterion": "spectrum", "modules": [{"name": "layers.0.q", "type": "q", "parameter":'
    b' "layers.0.q.weight", "shape": [2, 3], "dtype": "BF16", "snr": 1.5, "noise_free": false, "s_max": 2.0, "s_min": '
    b'0.5, "q25": 0.7, "q50": 1.0, "q75": 1.5, "threshold": 1.1, "signal_sum": 2.0, "noise_sum": 0.5, "n_signal": 1, '
    b'"n_noise": 1, "error_bound": 1e-07, "method": "svd-float64", "frobenius_residual": 0.0, "note": ""}], "failures":'
    b' [{"name": "x", "shape": [1], "dtype": "F32", "kind": "values", "message": "holds NaN"}], "ties": {"b": "a"}, '
    b'"skipped": [{"name": "n", "reason": "buffer"}], "provenance": {"tool": "spectrum_fast"}}'
)
_SCAN_SEEDS = (
    _OWN_SCAN,
    b'{"model.layers.0.mlp.down_proj": {"snr": 1.25, "type": "mlp.down_proj"}, "head": {"snr": Infinity, "type": "h"}}',
    b'{"mlp.down_proj": {"model.layers.0.mlp.down_proj": 1.25, "model.layers.1.mlp.down_proj": NaN}}',
)
_SELECTION_SEEDS = (
    b'{"schema": 1, "kind": "selection", "model": "m", "criterion": "spectrum", "top_percent": 50, "grouping": "type", '
    b'"rounding": "reference", "always_rule": "default", "always": ["lm_head"], "failed": [], "modules": [{"name": '
    b'"layers.0.q", "type": "q", "group": "q", "parameter": null, "shape": [2, 2], "snr": 1.5, "noise_free": false, '
    b'"rank": 1, "group_size": 2}], "groups": [{"name": "q", "taken": 1, "size": 2, "always": [], "last_taken": '
    b'"layers.0.q", "first_left_out": "layers.1.q", "gap": 0.5, "undecided": false}]}',
    b"unfrozen_parameters:\n- ^lm_head.weight$\n- ^model.embed_tokens.weight$\n# q layers\n- model.layers.1.q\n",
    b'["model.layers.0.q", "model.layers.1.q"]',
    b"# a comment\nmodel.layers.0.q\nmodel.layers.1.q\n",
)
_JSON_WORDS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"\\u0000",
)

TARGETS: dict[str, Target] = {
    "header": Target(
        fuzz_header,
        _HEADER_SEEDS,
        (*_JSON_WORDS, b'"dtype"', b'"shape"', b'"data_offsets"', b"__metadata__", b"F8_E4M3", b"9223372036854775807"),
    ),
    "gguf": Target(
        fuzz_gguf,
        _GGUF_SEEDS,
        (b"GGUF", b"general.alignment", b"general.architecture", b"llama", b"_exps.weight", bytes(8), b"\xff" * 8),
    ),
    "index": Target(fuzz_index, _INDEX_SEEDS, (*_JSON_WORDS, b'"weight_map"', b"../", b"/etc/x", b".safetensors")),
    "scan": Target(
        fuzz_scan, _SCAN_SEEDS, (*_JSON_WORDS, b'"modules"', b'"snr"', b'"type"', b'"schema"', b'"noise_free"')
    ),
    "selection": Target(
        fuzz_selection,
        _SELECTION_SEEDS,
        (
            *_JSON_WORDS,
            b'"kind"',
            b'"selection"',
            b"unfrozen_parameters:",
            b"- ",
            b"^",
            b"$",
            b"# q layers",
            b"\xef\xbb\xbf",
        ),
    ),
}
"""Every target by name; ``published`` results are read by the target ``scan``."""
