"""A checkpoint's folder, wherever it lies: its files' names, and the address of one of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.containment import require_inside
from spectrum_fast.read.storage import Address, RemoteFile


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
