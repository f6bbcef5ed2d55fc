"""A checkpoint's folder, wherever it lies: its files' names, and the address of one of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.containment import require_inside
from spectrum_fast.read.storage import Address


class Folder(Protocol):
    """A folder; ``str`` shows it to people."""

    @property
    def names(self) -> Sequence[str]:
        """Plain names of its files."""
        ...

    def file(self, name: str) -> Address:
        """Address of one of its files.

        Raises:
            CheckpointError: the bytes behind the name do not belong to the folder.
        """
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine.

    Attributes:
        path: the folder.
        names: plain names of its files; folders below are not among them.
    """

    path: Path
    names: tuple[str, ...]

    def file(self, name: str) -> Path:
        """Path of a file, which must not be a link that leads out of the folder."""
        return require_inside(self.path, name)

    def __str__(self) -> str:
        return str(self.path)


def list_local(path: Path) -> LocalFolder:
    """List a folder.

    Raises:
        CheckpointError: it cannot be listed.
    """
    try:
        names = [entry.name for entry in os.scandir(path) if not entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be listed: {error.strerror or error}; check its permissions") from error
    return LocalFolder(path, tuple(names))
