"""From what a user names - a folder, a file, a hub id, a remote address - to an opened checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.assembly import open_adapter, open_file, open_folder
from spectrum_fast.read.checkpoint.folder import Folder, cached_repo_of, list_local
from spectrum_fast.read.checkpoint.hub import fetch_snapshot, list_repository, parse_hub_id
from spectrum_fast.read.checkpoint.layout import PICKLES, is_adapter
from spectrum_fast.read.storage import RemoteFile
from spectrum_fast.read.storage.files import shorten
from spectrum_fast.words import nearest_names

if TYPE_CHECKING:
    from spectrum_fast.read.checkpoint.record import Checkpoint

_REMOTE = re.compile(r"(https?|s3|gs)://([^/@\s]*@)?[^/@\s]+(/[^\x00-\x1f]*)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_checkpoint(source: str | os.PathLike[str], *, no_store: bool = False, adapters: bool = False) -> Checkpoint:
    """Open a checkpoint: read and check the headers of all its files, and nothing of its tensors.

    Args:
        source: a folder (``model.safetensors``, an index with its shards, a set of safetensors files, or a GGUF model),
            one ``.safetensors`` or ``.gguf`` file, a hub id ``org/name[@revision]``, or a folder or file behind
            ``https://``, ``s3://`` or ``gs://``. What exists on disk is never taken for a hub id.
        no_store: read a hub id's files over the network, range by range, and keep nothing of them on disk; otherwise
            they are downloaded to the hub's cache. Without effect on other sources.
        adapters: take the folder (or repository) of an adapter, too: its tensors have the names of what they change.

    Returns:
        The checkpoint with its tensors in reading order.

    Raises:
        CheckpointError: nothing there, nothing safe to read there, or something broken; the message says which file,
            what was expected and what to do.
        BackendUnavailableError: a remote source, and obstore is not installed.
    """
    text = os.fspath(source)

    def opened(shown: str, folder: Folder, name: str) -> Checkpoint:
        return (open_adapter if adapters and is_adapter(folder.names) else open_folder)(shown, folder, name)

    if not isinstance(source, Path) and _SCHEME.match(text):
        return _open_remote(text, opened)
    path = Path(text)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise CheckpointError(
            f"{text}: cannot be looked at: {error.strerror or error}; check its permissions"
        ) from error
    if is_folder:
        return opened(text, list_local(path), cached_repo_of(path.resolve()) or path.resolve().name or text)
    if is_there:
        return open_file(text, path)
    hub_id = None if isinstance(source, Path) else parse_hub_id(text)
    near = _nearest(path)
    if near is not None and (hub_id is None or "@" not in text):
        elsewhere = "" if hub_id is None else f" For the model of that name on the hub, write {text}@main"
        raise CheckpointError(f"{shorten(text, 400)}: no such folder or file; did you mean {near}?{elsewhere}")
    if hub_id is None:
        raise CheckpointError(
            f"{shorten(text, 400)}: no such folder or file, and not a hub id either (org/name or org/name@revision); "
            "check the path"
        )
    repository, revision = hub_id
    if no_store:
        commit, names = list_repository(repository, revision)
        note = f"{repository} at commit {commit}, read over the network and not stored"
        return opened(text, Folder(RemoteFile(f"hf://{repository}@{commit}/"), names, (note,)), repository)
    snapshot = fetch_snapshot(repository, revision, adapters=adapters)
    note = f"{repository} at commit {snapshot.name} from the hub's cache"
    return opened(text, list_local(snapshot, note), repository)


def _nearest(path: Path) -> Path | None:
    """What is there under a name that is nearly this one: four fifths of each part of it, and the same digits."""
    found = Path(path.anchor)
    for part in path.parts[len(found.parts) :]:
        try:
            names = os.listdir(found)
        except OSError:
            return None
        if part not in names and part != "..":
            digits = re.findall("[0-9]+", part)
            same = [name for name in names if re.findall("[0-9]+", name) == digits]
            near = nearest_names(part, same, limit=1, cutoff=0.8)
            if not near:
                return None
            part = near[0]
        found /= part
    return found if found.exists() else None


def _open_remote(text: str, opened: Callable[..., Checkpoint]) -> Checkpoint:
    """Open a file or folder behind a network; what is shown of the address holds no secret."""
    from spectrum_fast.read.checkpoint.remote_folder import list_bucket, probe_web_folder

    given = RemoteFile(text)
    if _REMOTE.fullmatch(text) is None:
        raise CheckpointError(
            f"{shorten(given.shown, 400)}: expected https://host/..., s3://bucket/... or gs://bucket/..., or a hub id "
            "org/name; check the address"
        )
    shown = given.shown
    if _is_file(given):
        return open_file(shown, given)
    at = given.as_folder()
    folder = list_bucket(at) if given.scheme in ("s3", "gs") else probe_web_folder(at)
    return opened(shown, folder, str(folder).rpartition("/")[2])


def _is_file(address: RemoteFile) -> bool:
    """A name with one of the endings that files have; folders of models carry dots in their names too."""
    return address.name.endswith((".safetensors", ".gguf", ".json", *PICKLES))
