"""Files that a stream has open: each opened once however many threads read it, closed when nothing refers to it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.read.storage import Address, StoredFile, open_stored_file
from spectrum_fast.system import DIRECT, PRIVATE, read_at, will_be_read_in_order

_IDLE_FILES = 4
"""Files kept open although nothing in flight refers to them: scales in another shard are asked for in turn."""


class OpenFile:
    """One open file, with a second descriptor past the page cache where that was asked for and works.

    Args:
        address: what to open.
        direct_io: see :class:`spectrum_fast.read.stream.options.StreamOptions`.
        stop: once set, opening and reading a remote file end within a moment.

    Raises:
        CheckpointError: it cannot be opened.
        BackendUnavailableError: ``direct_io`` is ``on`` and the file system refuses.
    """

    def __init__(self, address: Address, direct_io: str, stop: threading.Event) -> None:
        self.address = address
        self.stored: StoredFile = open_stored_file(address, stop)
        self.refusal = ""
        self._direct = -1
        self._direct_io = direct_io
        descriptor = self.stored.descriptor()
        try:
            if descriptor is not None:
                will_be_read_in_order(descriptor)
            if direct_io != "off":
                self._open_direct(descriptor)
        except BaseException:
            self.close()
            raise

    def read_into(self, buffer: memoryview, offset: int, *, direct: bool) -> int:
        """Read at ``offset``, past the page cache if ``direct`` says so and it is possible.

        Raises:
            OSError: the read failed.
            BackendUnavailableError: a direct read was asked for by name and is refused.
        """
        if direct and self._direct >= 0:
            try:
                return read_at(self._direct, buffer, offset)
            except OSError as error:
                if error.errno != 22:  # EINVAL: the file system wants another alignment, or none of it
                    raise
                self._refuse(error.strerror or str(error))
        return self.stored.read_into(buffer, offset)

    def close(self) -> None:
        """Close both descriptors."""
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1
        self.stored.close()

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
        self.refusal = f"{self.address}: read through the page cache, O_DIRECT refused ({reason})"


class OpenFiles:
    """All files of a stream; safe to use from several threads.

    Args:
        direct_io: see :class:`OpenFile`.
        stop: likewise.
    """

    def __init__(self, direct_io: str, stop: threading.Event) -> None:
        self._direct_io, self._stop = direct_io, stop
        self._lock = threading.Lock()
        self._users: dict[Address, int] = {}
        self._files: dict[Address, OpenFile] = {}
        self._idle: OrderedDict[Address, None] = OrderedDict()
        self._opening: dict[Address, threading.Lock] = {}
        self.refusals: list[str] = []

    def acquire(self, address: Address) -> OpenFile:
        """The open file; to be given back by :meth:`release` once for every call."""
        with self._lock:
            opening = self._opening.setdefault(address, threading.Lock())
        with opening:  # one thread opens, the others wait for this file and for no other
            with self._lock:
                if address in self._files:
                    return self._take(address)
            file = OpenFile(address, self._direct_io, self._stop)
            with self._lock:
                self._files[address] = file
                return self._take(address)

    def release(self, address: Address) -> None:
        """Give a file back; the least recently used idle ones are closed."""
        surplus: list[OpenFile] = []
        with self._lock:
            self._note_refusal(self._files[address])
            self._users[address] -= 1
            if self._users[address] == 0:
                del self._users[address]
                self._idle[address] = None
            while len(self._idle) > _IDLE_FILES:
                oldest, _ = self._idle.popitem(last=False)
                surplus.append(self._files.pop(oldest))
        for file in surplus:
            file.close()

    def close(self) -> None:
        """Close every file; nothing may be reading any more."""
        with self._lock:
            files = list(self._files.values())
            self._files.clear()
            self._users.clear()
            self._idle.clear()
        for file in files:
            file.close()

    def _take(self, address: Address) -> OpenFile:
        file = self._files[address]
        self._users[address] = self._users.get(address, 0) + 1
        self._idle.pop(address, None)
        self._note_refusal(file)
        return file

    def _note_refusal(self, file: OpenFile) -> None:
        if file.refusal and file.refusal not in self.refusals:
            self.refusals.append(file.refusal)
