"""Regular files of this machine: opening them (never a pipe or a device), and noticing when they change.

:mod:`spectrum_fast.read.storage` reads them, and files that lie elsewhere.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from spectrum_fast.errors import CheckpointError
from spectrum_fast.system import NO_WAIT, PRIVATE, read_at


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What identifies one state of one file; a scan compares it before and after reading.

    Attributes:
        size_bytes: length of the file.
        mtime_ns: time of the last change of its content, nanoseconds since the epoch.
        inode: inode number; a file replaced by renaming has another one.
        device: number of the device that holds the inode.
        ctime_ns: time of the last change of content or of what is known about it; unlike ``mtime_ns`` nobody can put
            it back.
    """

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    ctime_ns: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Take the stamp from the result of a ``stat`` call."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, status.st_ctime_ns)


def shorten(text: str, limit: int = 120) -> str:
    """Quote a name from an untrusted file for an error message, at most about ``limit`` characters.

    >>> shorten("model.layers.0")
    "'model.layers.0'"
    """
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def changed(what: object) -> CheckpointError:
    """The error for a file, or a folder, that is no longer what it was."""
    return CheckpointError(
        f"{what}: changed since it was opened: truncated or replaced while being read; scan again when nothing writes "
        "to it"
    )


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class LocalFile:
    """A regular file, open for positional reads.

    Args:
        path: the file; symbolic links are followed.

    Raises:
        CheckpointError: the file is missing, not readable or not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | PRIVATE | NO_WAIT)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise CheckpointError(f"{path}: cannot be opened: {reason}; check the path and its permissions") from error
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise CheckpointError(f"{path}: expected a regular file, found {kind}; pass the file itself")
        self.stamp = FileStamp.of(status)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read once; see :meth:`StoredFile.read_into`."""
        return read_at(self.descriptor, buffer, offset)

    def require_unchanged(self) -> None:
        """Look at the path again: it must still lead to the file that is open, unchanged."""
        try:
            now = FileStamp.of(os.stat(self._path))
        except OSError as error:
            raise changed(self._path) from error
        if now != self.stamp:
            raise changed(self._path)

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
