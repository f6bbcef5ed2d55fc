"""What operating systems have or lack: flags of an open, locks on open files, reads at an offset, the memory's size.

The only module that may name what Linux, macOS and Windows do not share (tests/test_system.py looks at all others).
"""

from __future__ import annotations

import errno
import os
import threading

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def _flag(name: str) -> int:
    return getattr(os, name, 0)


PRIVATE = _flag("O_CLOEXEC") | _flag("O_NOINHERIT") | _flag("O_BINARY")
"""Flags of every open: bytes as they are, and no child process inherits the descriptor."""
NO_WAIT = _flag("O_NONBLOCK")
"""Without it the open of a named pipe waits for a writer for ever."""
NO_LINK = _flag("O_NOFOLLOW")
DIRECT = _flag("O_DIRECT")
"""Past the page cache; 0 where there is no such way."""

_seek_and_read = threading.Lock()


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Take an advisory lock on an open file, without waiting; it ends with the descriptor.

    Raises:
        BlockingIOError: another process has it.
        OSError: with ENOSYS, ENOLCK or EOPNOTSUPP where system or file system has no such locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no advisory locks on this system")
    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill as much of ``buffer`` as one read gives, from ``offset`` on; from several threads at once.

    Returns:
        bytes read; 0 at the end of the file.
    """
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    with _seek_and_read:
        os.lseek(descriptor, offset, os.SEEK_SET)
        found = os.read(descriptor, len(buffer))
    buffer[: len(found)] = found
    return len(found)


def will_be_read_in_order(descriptor: int) -> None:
    """Tell the system, where it listens, to read ahead."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def set_mode(path: str | os.PathLike[str], descriptor: int, mode: int) -> None:
    """Give an open file its permissions, by the descriptor where that can be done."""
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    else:
        os.chmod(path, mode)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes(otherwise: int = 8 * 2**30) -> int:
    """Physical memory of this machine; ``otherwise`` where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return otherwise
