"""The interface of an open file, wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.files import FileStamp


@dataclass(frozen=True, slots=True)
class RemoteStamp:
    """What identifies one state of one remote file, as far as its server tells.

    Attributes:
        size_bytes: length of the file.
        etag: entity tag, or empty where the server sends none.
        last_modified: time of the last change, as text, or empty.
        version: version of the object, or the commit of a hub repository, or empty.
    """

    size_bytes: int
    etag: str = ""
    last_modified: str = ""
    version: str = ""

    @property
    def names_content(self) -> bool:
        """Whether other content would have another stamp: a date is no such name."""
        return bool(self.etag or self.version)


@dataclass(frozen=True)
class Target:
    """Where requests for a file go.

    Attributes:
        url: address, without user name and password.
        headers: sent with every request to that host; dropped when a redirect leads to another one.
        stamp: what is known about the file beforehand, or None. Its entity tag and version then stand for those of the
            answers.
    """

    url: str
    headers: dict[str, str]
    stamp: RemoteStamp | None = None

    def __repr__(self) -> str:
        return f"Target({RemoteFile(self.url)})"


Stamp: TypeAlias = FileStamp | RemoteStamp
"""State of a file; two stamps of one file are equal if and only if it was not changed between them."""


class StoredFile(Protocol):
    """One file, open for positional reads; several threads may read from it at once."""

    @property
    def stamp(self) -> Stamp:
        """State of the file when it was opened."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read bytes at ``offset`` into a writable, contiguous buffer of bytes.

        Returns:
            How many were read: at least one, perhaps fewer than the buffer holds; 0 only at the end of the file.

        Raises:
            OSError: the read failed for good; :func:`spectrum_fast.read.storage.read_failure` puts it in words.
            CheckpointError: a remote file is no longer the one that was opened.
        """
        ...

    @property
    def descriptor(self) -> int | None:
        """Descriptor of a local file, for advice to the kernel; stays owned by this object. None for a remote file."""
        ...

    def require_unchanged(self) -> None:
        """Make sure that the address still leads to the state that was opened.

        Raises:
            CheckpointError: it leads elsewhere, or nowhere.
        """
        ...

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        ...
