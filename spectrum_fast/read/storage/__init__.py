"""Where the bytes of a checkpoint lie, and how they are read: one interface, whatever the place.

Everything above reads through :func:`open_stored_file`: the header parser, the duplicate finder and the reader of
tensors do not know whether a file is on a disk or behind a network.
"""

from __future__ import annotations

from spectrum_fast.read.storage.address import Address, RemoteFile
from spectrum_fast.read.storage.reading import (
    map_reads,
    open_stored_file,
    opened,
    read_bytes,
    read_failure,
    read_small_file,
)
from spectrum_fast.read.storage.settings import remote_settings
from spectrum_fast.read.storage.stored_file import RemoteStamp, Stamp, StoredFile

__all__ = [
    "Address",
    "RemoteFile",
    "RemoteStamp",
    "Stamp",
    "StoredFile",
    "map_reads",
    "open_stored_file",
    "opened",
    "read_bytes",
    "read_failure",
    "read_small_file",
    "remote_settings",
]
