"""A checkpoint's folder, wherever it lies: its files' names, and the address of one of them.

Symbolic links must not lead a scan out of it: a folder from an untrusted source may hold links to anything the user can
read. Links inside the folder are followed. The one exception is huggingface_hub's cache, where
``models--org--name/snapshots/<commit>/file`` is a link to ``models--org--name/blobs/<hash>``, which may itself be a
link into the cache's shared ``blobs/<xx>/<hash>``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage import Address, RemoteFile

_SHARED_BLOB = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")


@dataclass(frozen=True)
class Folder:
    """A folder; ``str`` shows it to people.

    Attributes:
        address: its path, or the address of a remote file in it without the name.
        names: plain names of the files that are known to be in it; folders below are not among them.
        notes: what a person should know about how they were found.
    """

    address: Address
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def file(self, name: str) -> Address:
        """Address of one of its files, by its plain name.

        Raises:
            CheckpointError: it is a link that leads out of the folder.
        """
        if isinstance(self.address, RemoteFile):
            return self.address.sibling(name)
        return require_inside(self.address, name)

    def __str__(self) -> str:
        return str(self.address).rstrip("/") or "/"


def list_local(path: Path, *notes: str) -> Folder:
    """List a folder of this machine.

    Raises:
        CheckpointError: it cannot be listed.
    """
    try:
        names = [entry.name for entry in os.scandir(path) if not entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be listed: {error.strerror or error}; check its permissions") from error
    return Folder(path, tuple(names), notes)


def require_inside(folder: Path, name: str) -> Path:
    """Give the path of a file in a folder after making sure that its bytes belong to the folder.

    Args:
        folder: the checkpoint's folder.
        name: plain name of a file in it.

    Returns:
        ``folder / name``, not resolved.

    Raises:
        CheckpointError: the file is a link that leads out of the folder, in a circle, or nowhere.
    """
    path = folder / name
    try:
        home = folder.resolve(strict=True)
        target = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: the file, or what it links to, does not exist; download the checkpoint again"
        ) from error
    except (OSError, RuntimeError) as error:  # a circle of links is one or the other, by Python version
        raise CheckpointError(f"{path}: the link cannot be followed: {error}; replace it by the file itself") from error
    if target.is_relative_to(home) or _is_cached_blob(home, name, target):
        return path
    raise CheckpointError(
        f"{path}: the link leads out of the checkpoint's folder, to {target}; copy the file into the folder, or pass "
        "the folder that really holds it"
    )


def cached_repo_of(folder: Path) -> str | None:
    """Name of the hub repository if the folder is a snapshot in huggingface_hub's cache, else None.

    >>> cached_repo_of(Path("/c/models--org--name/snapshots/0123"))
    'org/name'
    """
    repository = _cached_repository(folder)
    return None if repository is None else repository.name.removeprefix("models--").replace("--", "/")


def _cached_repository(folder: Path) -> Path | None:
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent
    return None


def _is_cached_blob(home: Path, name: str, target: Path) -> bool:
    repository = _cached_repository(home)
    if repository is None:
        return False
    blobs = repository / "blobs"
    if target.parent == blobs:
        return True
    # One link further: into the store that all repositories of the cache share.
    link = home / name
    first = Path(link.parent, link.readlink()) if link.is_symlink() else link
    shared = repository.parent / "blobs"
    return (
        first.parent.resolve() == blobs
        and target.is_relative_to(shared)
        and _SHARED_BLOB.fullmatch(target.relative_to(shared).as_posix()) is not None
    )
