"""From an address to an open file."""

from __future__ import annotations

import threading

from spectrum_fast.read.storage.address import Address, RemoteFile
from spectrum_fast.read.storage.local import LocalFile
from spectrum_fast.read.storage.stored_file import StoredFile


def open_stored_file(address: Address, stop: threading.Event | None = None) -> StoredFile:
    """Open one file of a checkpoint; the caller closes it.

    Args:
        address: a path, or the address of a remote file.
        stop: once set, opening and reading a remote file end within a moment with an error, in whichever thread.

    Raises:
        CheckpointError: the file is missing, not readable or not a regular file; a server does not answer, or not by
            ranges.
        BackendUnavailableError: a remote file, and obstore is not installed.
    """
    if isinstance(address, RemoteFile):
        from spectrum_fast.read.storage.remote_file import RemoteStoredFile

        return RemoteStoredFile(address, stop=stop)
    return LocalFile(address)
