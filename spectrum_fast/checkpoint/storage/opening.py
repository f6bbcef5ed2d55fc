"""From an address to an open file."""

from __future__ import annotations

from spectrum_fast.checkpoint.storage.address import Address, RemoteFile
from spectrum_fast.checkpoint.storage.local import LocalFile
from spectrum_fast.checkpoint.storage.stored_file import StoredFile
from spectrum_fast.errors import CheckpointError


def open_stored_file(address: Address) -> StoredFile:
    """Open one file of a checkpoint; the caller closes it.

    Args:
        address: a path, or the address of a remote file.

    Raises:
        CheckpointError: the file is missing, not readable or not a regular file.
    """
    if isinstance(address, RemoteFile):
        raise CheckpointError(f"{address}: remote files are not read by this version; copy the checkpoint here")
    return LocalFile(address)
