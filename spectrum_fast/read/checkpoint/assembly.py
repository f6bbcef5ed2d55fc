"""From a folder or a file to an opened checkpoint: which files are read, and whether they belong together."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.config import read_config
from spectrum_fast.read.checkpoint.duplicates import tied_head_note
from spectrum_fast.read.checkpoint.folder import Folder
from spectrum_fast.read.checkpoint.gguf import SUFFIX, read_gguf_header
from spectrum_fast.read.checkpoint.gguf_names import to_hugging_face
from spectrum_fast.read.checkpoint.header import Header, read_header
from spectrum_fast.read.checkpoint.index import read_index
from spectrum_fast.read.checkpoint.layout import ADAPTER_CONFIG, ADAPTER_PREFIX, ADAPTER_WEIGHTS, choose_layout
from spectrum_fast.read.checkpoint.naming import natural_key
from spectrum_fast.read.checkpoint.record import Checkpoint, compute_fingerprint
from spectrum_fast.read.storage import Address, RemoteFile
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.words import list_some


def open_file(source: str, address: Address) -> Checkpoint:
    """Open one safetensors or GGUF file.

    Args:
        source: what the user gave, fit to be shown.
        address: the file.

    Raises:
        CheckpointError: another kind of file, or a broken one.
    """
    name = address.name
    if not name.endswith((".safetensors", SUFFIX)):
        own = "a folder, a .safetensors or .gguf file, or a hub id"
        kind = "the folder of an index" if name.endswith(".index.json") else own
        raise CheckpointError(f"{address}: expected {kind}, found {name}; pickles and other formats are never opened")
    header = _read_one(address)
    _require_tensors(source, [header])
    count = header.metadata.get("split.count", 1)
    notes = (f"one of {count} files of its model; the folder of all of them would be read whole",) if count != 1 else ()
    return _assemble(source, name.removesuffix(".safetensors").removesuffix(SUFFIX), [header], None, notes)


def open_folder(source: str, folder: Folder, name: str) -> Checkpoint:
    """Open the checkpoint in a folder.

    Args:
        source: what the user gave, fit to be shown.
        folder: the folder.
        name: display name of the checkpoint.

    Raises:
        CheckpointError: nothing safe to read there, or something broken.
    """
    names = folder.names
    layout = choose_layout(str(folder), names)
    notes = folder.notes + layout.notes
    if layout.index is None:
        headers = _read_headers(folder, layout.files)
        _require_distinct(headers)
    else:
        headers, index_notes = _open_index(folder, layout.index)
        notes += index_notes
    _require_tensors(source, headers)
    config: dict[str, Any] | None = None
    if "config.json" in names:
        try:
            config = read_config(folder.file("config.json"))
        except CheckpointError as error:
            notes += (f"config.json was not used: {error}",)
    return _assemble(source, name, headers, config, notes)


def open_adapter(source: str, folder: Folder, name: str) -> Checkpoint:
    """Open a PEFT adapter as a checkpoint of its own: its matrices under the names of the modules that it changes.

    Its configuration is the adapter's, known by its ``peft_type``.

    Raises:
        CheckpointError: its weights are not there as safetensors, or something is broken.
    """
    if ADAPTER_WEIGHTS not in folder.names:
        raise CheckpointError(
            f"{source}: an adapter, expected its matrices in {ADAPTER_WEIGHTS}, found none; save it again"
        )
    config = read_config(folder.file(ADAPTER_CONFIG))
    if not isinstance(config.get("peft_type"), str):
        raise CheckpointError(f"{source}: {ADAPTER_CONFIG}: expected a peft_type, found {config.get('peft_type')!r}")
    header = read_header(folder.file(ADAPTER_WEIGHTS))
    _require_tensors(source, [header])
    tensors = tuple(replace(ref, name=ref.name.removeprefix(ADAPTER_PREFIX)) for ref in header.tensors)
    return _assemble(source, name, [replace(header, tensors=tensors)], config, folder.notes)


def _assemble(
    source: str, name: str, headers: Sequence[Header], config: dict[str, Any] | None, notes: tuple[str, ...]
) -> Checkpoint:
    if any(header.path.name.endswith(SUFFIX) for header in headers):
        headers, said, more = to_hugging_face(headers)
        config, notes = {**said, **(config or {})}, (*notes, *more)
    tensors = tuple(ref for header in headers for ref in header.tensors)
    tied = tied_head_note(tensors, config)
    return Checkpoint(
        source=source,
        name=name,
        files=tuple(header.path for header in headers),
        tensors=tensors,
        config=config,
        notes=notes if tied is None else (*notes, tied),
        fingerprint=compute_fingerprint(headers),
    )


def _read_headers(folder: Folder, names: Iterable[str]) -> list[Header]:
    addresses = [folder.file(name) for name in sorted(names, key=natural_key)]
    if not any(isinstance(address, RemoteFile) for address in addresses):
        return [_read_one(address) for address in addresses]
    from spectrum_fast.read.storage.network import side_by_side

    return side_by_side(_read_one, addresses)


def _read_one(address: Address, stop: threading.Event | None = None) -> Header:
    return (read_gguf_header if address.name.endswith(SUFFIX) else read_header)(address, stop)


def _open_index(folder: Folder, index_name: str) -> tuple[list[Header], tuple[str, ...]]:
    index, names = folder.file(index_name), folder.names
    weight_map = read_index(index)
    shards = set(weight_map.values())
    missing = shards.difference(names)
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(shards)} files named in it are missing: {list_some(sorted(missing))}; "
            "download the checkpoint again"
        )
    headers = _read_headers(folder, shards)
    home = _require_distinct(headers)
    for tensor, shard in weight_map.items():
        found = home.get(tensor, "no file of the index")
        if found != shard:
            raise CheckpointError(
                f"{index}: tensor {shorten(tensor)} should be in {shard}, found in {found}; "
                "index and files do not belong together: download or save the checkpoint again"
            )
    return headers, _index_notes(index_name, home, weight_map, shards, names)


def _index_notes(
    index_name: str, home: dict[str, str], weight_map: dict[str, str], shards: set[str], names: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    unlisted = sorted((tensor for tensor in home if tensor not in weight_map), key=natural_key)
    if unlisted:
        notes.append(
            f"{len(unlisted)} tensors are not listed in {index_name} and were read all the same: "
            + list_some(unlisted, 5, shorten)
        )
    unread = sorted((name for name in names if name.endswith(".safetensors") and name not in shards), key=natural_key)
    if unread:
        notes.append(f"{index_name} was followed; not read: {list_some(unread)}")
    return tuple(notes)


def _require_distinct(headers: Sequence[Header]) -> dict[str, str]:
    """Map tensor name -> file name, refusing a tensor that is stored in two files."""
    home: dict[str, str] = {}
    for header in headers:
        file = header.path.name
        for ref in header.tensors:
            first = home.setdefault(ref.name, file)
            if first is not file:
                raise CheckpointError(
                    f"{header.path.parent}: tensor {shorten(ref.name)} is stored in both {first} and {file}; these "
                    "are two checkpoints in one folder or a broken one: pass one file, or a folder with one model"
                )
    return home


def _require_tensors(source: str, headers: Sequence[Header]) -> None:
    if not any(header.tensors for header in headers):
        raise CheckpointError(f"{source}: the files hold no tensor at all; save the model again")
