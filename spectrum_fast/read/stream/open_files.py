"""Files that a stream has open: each opened once however many threads read it, closed when nothing refers to it."""

from __future__ import annotations

import os
import threading

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.read.storage import Address, StoredFile, open_stored_file
from spectrum_fast.system import DIRECT, PRIVATE, read_at, will_be_read_in_order

_IDLE_FILES = 4
"""Files kept open although nothing in flight refers to them: scales in another shard are asked for in turn."""


class OpenFile:
    """One file, opened by the first thread that reads it, also past the page cache where that is asked for and works.

    Args:
        address: what to open.
        direct_io: see :class:`spectrum_fast.read.stream.options.StreamOptions`.
        stop: once set, opening and reading a remote file end within a moment.
        notes: told why it is not read past the page cache although that was asked for.

    Attributes:
        stored: the open file; None before the first read.
        users: how many batches refer to it.
    """

    def __init__(self, address: Address, direct_io: str, stop: threading.Event, notes: dict[str, None]) -> None:
        self.address = address
        self.stored: StoredFile | None = None
        self.users = 0
        self._direct = -1
        self._direct_io, self._stop, self._notes = direct_io, stop, notes
        self._opening = threading.Lock()

    def read_into(self, buffer: memoryview, offset: int, *, direct: bool) -> int:
        """Read at ``offset``, past the page cache if ``direct`` says so and it is possible.

        Raises:
            OSError: the read failed.
            CheckpointError: the file cannot be opened.
            BackendUnavailableError: direct reads were asked for by name and are refused.
        """
        with self._opening:  # one thread opens, the others wait for this file and for no other
            stored = self.stored or self._open()
        if direct and self._direct >= 0:
            try:
                return read_at(self._direct, buffer, offset)
            except OSError as error:
                if error.errno != 22:  # EINVAL: the file system wants another alignment, or none of it
                    raise
                self._refuse(error.strerror or str(error))
        return stored.read_into(buffer, offset)

    def close(self) -> None:
        """Close both descriptors."""
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1
        if self.stored is not None:
            self.stored.close()

    def _open(self) -> StoredFile:
        stored = open_stored_file(self.address, self._stop)
        descriptor = stored.descriptor
        try:
            if descriptor is not None:
                will_be_read_in_order(descriptor)
            if self._direct_io != "off":
                self._open_direct(descriptor)
        except BaseException:
            stored.close()
            raise
        self.stored = stored
        return stored

    def _open_direct(self, descriptor: int | None) -> None:
        if descriptor is None or not DIRECT:
            self._refuse("not a local file" if descriptor is None else "no O_DIRECT on this system")
            return
        try:  # through the open descriptor: the same file, even if another one has taken its name
            self._direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | PRIVATE | DIRECT)
        except OSError as error:
            self._refuse(error.strerror or str(error))

    def _refuse(self, reason: str) -> None:
        if self._direct_io == "on":
            raise BackendUnavailableError(
                f"{self.address}: direct I/O was asked for, expected a local file system that reads past the page "
                f"cache (O_DIRECT), found: {reason}; use --direct-io auto or off"
            )
        self._notes[f"{self.address}: read through the page cache, O_DIRECT refused ({reason})"] = None


class OpenFiles:
    """All files of a stream; safe to use from several threads.

    Args:
        direct_io: see :class:`OpenFile`.
        stop: likewise.

    Attributes:
        notes: what the reader should know, each once, such as that a file refused direct I/O.
    """

    def __init__(self, direct_io: str, stop: threading.Event) -> None:
        self._direct_io, self._stop = direct_io, stop
        self._lock = threading.Lock()
        self._files: dict[Address, OpenFile] = {}  # the one acquired last stands last
        self.notes: dict[str, None] = {}

    def acquire(self, address: Address) -> OpenFile:
        """A file, open or to be opened; to be given back by :meth:`release` once for every call."""
        with self._lock:
            file = self._files.pop(address, None) or OpenFile(address, self._direct_io, self._stop, self.notes)
            self._files[address] = file
            file.users += 1
            return file

    def release(self, file: OpenFile) -> None:
        """Give a file back; of the idle ones, the last few stay open."""
        with self._lock:
            file.users -= 1
            idle = [known for known in self._files.values() if not known.users]
            surplus = [self._files.pop(known.address) for known in idle[:-_IDLE_FILES]]
        for known in surplus:
            known.close()

    def close(self) -> None:
        """Close every file; nothing may be reading any more."""
        for file in self._files.values():
            file.close()
        self._files.clear()
