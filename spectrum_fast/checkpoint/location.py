"""From what a user names - a folder, a file, a hub id - to an opened checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spectrum_fast.checkpoint.config import read_config
from spectrum_fast.checkpoint.containment import cached_repo_of, require_inside
from spectrum_fast.checkpoint.duplicates import tied_head_note
from spectrum_fast.checkpoint.files import shorten
from spectrum_fast.checkpoint.header import Header, read_header
from spectrum_fast.checkpoint.hub import fetch_snapshot, parse_hub_id
from spectrum_fast.checkpoint.index import read_index
from spectrum_fast.checkpoint.layout import choose_layout
from spectrum_fast.checkpoint.naming import natural_key
from spectrum_fast.checkpoint.record import Checkpoint, compute_fingerprint
from spectrum_fast.errors import CheckpointError


def open_checkpoint(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint: read and check the headers of all its files, and nothing of its tensors.

    Args:
        source: a folder (``model.safetensors``, an index with its shards, or a set of safetensors files), one
            ``.safetensors`` file, or a hub id ``org/name[@revision]``. What exists on disk is never taken for a hub id.

    Returns:
        The checkpoint with its tensors in reading order.

    Raises:
        CheckpointError: nothing there, nothing safe to read there, or something broken; the message says which file,
            what was expected and what to do.
    """
    text = os.fspath(source)
    path = Path(text)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise CheckpointError(
            f"{text}: cannot be looked at: {error.strerror or error}; check its permissions"
        ) from error
    if is_folder:
        return _open_folder(text, path, cached_repo_of(path.resolve()) or path.resolve().name or text, ())
    if is_there:
        return _open_file(text, path)
    hub_id = None if isinstance(source, Path) else parse_hub_id(text)
    if hub_id is None:
        raise CheckpointError(
            f"{shorten(text, 400)}: no such folder or file, and not a hub id either (org/name or org/name@revision); "
            "check the path"
        )
    repository, revision = hub_id
    folder = fetch_snapshot(repository, revision)
    return _open_folder(text, folder, repository, (f"{repository} at commit {folder.name} from the hub's cache",))


def _open_file(source: str, path: Path) -> Checkpoint:
    if path.suffix != ".safetensors":
        kind = (
            "the folder of an index"
            if path.name.endswith(".index.json")
            else "a folder, a .safetensors file or a hub id"
        )
        raise CheckpointError(f"{path}: expected {kind}, found {path.name}; pickles and other formats are never opened")
    header = read_header(path)
    _require_tensors(source, [header])
    return _assemble(source, path.stem, [header], None, ())


def _open_folder(source: str, folder: Path, name: str, notes: tuple[str, ...]) -> Checkpoint:
    try:
        names = [entry.name for entry in os.scandir(folder) if not entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be listed: {error.strerror or error}; check its permissions"
        ) from error
    layout = choose_layout(str(folder), names)
    notes += layout.notes
    if layout.index is None:
        headers = _read_headers(folder, layout.files)
        _require_distinct(headers)
    else:
        headers, index_notes = _open_index(folder, layout.index, names)
        notes += index_notes
    _require_tensors(source, headers)
    config: dict[str, Any] | None = None
    if "config.json" in names:
        try:
            config = read_config(require_inside(folder, "config.json"))
        except CheckpointError as error:
            notes += (f"config.json was not used: {error}",)
    return _assemble(source, name, headers, config, notes)


def _assemble(
    source: str, name: str, headers: Sequence[Header], config: dict[str, Any] | None, notes: tuple[str, ...]
) -> Checkpoint:
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


def _read_headers(folder: Path, names: Iterable[str]) -> list[Header]:
    return [read_header(require_inside(folder, name)) for name in sorted(names, key=natural_key)]


def _open_index(folder: Path, index_name: str, names: Sequence[str]) -> tuple[list[Header], tuple[str, ...]]:
    index = require_inside(folder, index_name)
    weight_map = read_index(index)
    shards = sorted(set(weight_map.values()), key=natural_key)
    present = set(names)
    missing = [shard for shard in shards if shard not in present]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(shards)} files named in it are missing: {', '.join(missing)}; "
            "download the checkpoint again"
        )
    headers = _read_headers(folder, shards)
    home = _require_distinct(headers)
    for tensor, shard in weight_map.items():
        found = home.get(tensor)
        if found is None:
            raise CheckpointError(
                f"{index}: tensor {shorten(tensor)} should be in {shard}, found in no file of the index; "
                "index and files do not belong together: download or save the checkpoint again"
            )
        if found != shard:
            raise CheckpointError(
                f"{index}: tensor {shorten(tensor)} should be in {shard}, found in {found}; "
                "index and files do not belong together: download or save the checkpoint again"
            )
    return headers, _index_notes(index_name, home, weight_map, shards, names)


def _index_notes(
    index_name: str, home: dict[str, str], weight_map: dict[str, str], shards: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    unlisted = sorted((tensor for tensor in home if tensor not in weight_map), key=natural_key)
    if unlisted:
        notes.append(
            f"{len(unlisted)} tensors are not listed in {index_name} and were read all the same: {_some(unlisted)}"
        )
    unread = sorted(
        (name for name in names if name.endswith(".safetensors") and name not in set(shards)), key=natural_key
    )
    if unread:
        notes.append(f"{index_name} was followed; not read: {', '.join(unread[:8])}{' and more' if unread[8:] else ''}")
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
        raise CheckpointError(f"{source}: the safetensors files hold no tensor at all; save the model again")


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(shorten(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
