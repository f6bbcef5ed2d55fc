"""Files on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage.files import FileStamp, open_regular_file
from spectrum_fast.system import read_at


class LocalFile:
    """A regular file, open for positional reads.

    Args:
        path: the file; symbolic links are followed.

    Raises:
        CheckpointError: the file is missing, not readable or not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor, self._stamp = open_regular_file(path)

    @property
    def size_bytes(self) -> int:
        """Length of the file when it was opened."""
        return self._stamp.size_bytes

    @property
    def stamp(self) -> FileStamp:
        """State of the file when it was opened."""
        return self._stamp

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read once; see :meth:`StoredFile.read_into`."""
        return read_at(self._descriptor, buffer, offset)

    def descriptor(self) -> int | None:
        """Descriptor of the file, owned by this object."""
        return self._descriptor

    def require_unchanged(self) -> None:
        """Look at the path again: it must still lead to the file that is open, unchanged.

        Raises:
            CheckpointError: it does not.
        """
        try:
            now = FileStamp.of(os.stat(self._path))
        except OSError as error:
            raise self._changed() from error
        if now != self._stamp:
            raise self._changed()

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _changed(self) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: the file was truncated or replaced while being read; scan again when nothing writes to it"
        )
