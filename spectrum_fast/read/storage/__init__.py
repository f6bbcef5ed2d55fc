"""Where the bytes of a checkpoint lie, and how they are read: one interface, whatever the place.

Everything above reads through :func:`open_stored_file`: the header parser, the duplicate finder and the reader of
tensors do not know whether a file is on a disk or behind a network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage.address import Address, RemoteFile
from spectrum_fast.read.storage.files import LocalFile, changed
from spectrum_fast.read.storage.settings import remote_settings
from spectrum_fast.read.storage.stored_file import RemoteStamp, Stamp, StoredFile

__all__ = ["Address", "RemoteFile", "RemoteStamp", "Stamp", "StoredFile", "remote_settings"]

Item = TypeVar("Item")
Found = TypeVar("Found")


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


@contextmanager
def opened(address: Address, stop: threading.Event | None = None, stamp: Stamp | None = None) -> Iterator[StoredFile]:
    """An open file of a checkpoint; a read that fails inside is the error of that file.

    ``stop`` is that of :func:`open_stored_file`; ``stamp`` the state that the file must have, None for any.

    Raises:
        CheckpointError: it cannot be opened, is in another state, or a read failed.
        BackendUnavailableError: a remote file, and obstore is not installed.
    """
    file = open_stored_file(address, stop)
    try:
        if stamp is not None and file.stamp != stamp:
            raise changed(address)
        yield file
    except OSError as error:
        raise CheckpointError(f"{address}: cannot be read: {read_failure(error)}") from error
    finally:
        file.close()


def read_bytes(file: StoredFile, count: int, offset: int) -> bytes:
    """Read up to ``count`` bytes at ``offset``; fewer only at the end of the file.

    The caller has checked ``count`` against the file's size: so much is allocated.

    Raises:
        OSError: the read failed.
        CheckpointError: a remote file is no longer the one that was opened.
    """
    data = bytearray(count)
    done = 0
    with memoryview(data) as view:
        while done < count and (got := file.read_into(view[done:], offset + done)):
            done += got
        return bytes(view[:done])


def read_small_file(address: Address, limit_bytes: int) -> bytes:
    """Read a whole file that must not be larger than ``limit_bytes``.

    Raises:
        CheckpointError: the file is too large, cannot be read or is not a regular file.
    """
    if isinstance(address, RemoteFile):
        from spectrum_fast.read.storage.remote_file import fetch_small_file

        return fetch_small_file(address, limit_bytes)
    with opened(address) as file:
        size_bytes = file.stamp.size_bytes
        if size_bytes > limit_bytes:
            raise CheckpointError(
                f"{address}: expected at most {limit_bytes} bytes, found {size_bytes}; this is not a checkpoint's file"
            )
        return read_bytes(file, size_bytes, 0)


def map_reads(read: Callable[[Item], Found], items: Iterable[Item], address: Address) -> list[Found]:
    """Several reads of one file: at once where each waits for a network most of the time, else one after the other."""
    if not isinstance(address, RemoteFile):
        return list(map(read, items))
    from spectrum_fast.read.storage.network import side_by_side

    return side_by_side(lambda item, _: read(item), items)


def read_failure(error: OSError) -> str:
    """Say what went wrong with a read and what to do.

    >>> read_failure(OSError(5, "Input/output error"))
    'Input/output error; check the disk'
    """
    return f"{error.strerror}; check the disk" if error.strerror else str(error)
