"""Files and folders in the making, beside what they will replace; what a killed process left there is swept up.

Each is called ``.NAME.XXXXXXXXXXXX.tmp`` (12 hexadecimal digits) and locked (``flock``) by the process that fills it.
The lock ends with the process, however it ends, so that whoever writes the same target next knows what is abandoned.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from spectrum_fast.system import NO_LINK, NO_WAIT, PRIVATE, lock

_LONGEST_NAME = 100
"""Characters of the target's name that are kept, so that the whole fits the 255 bytes of a file name."""


@contextlib.contextmanager
def temporary_beside(target: Path, *, folder: bool = False) -> Iterator[tuple[Path, int]]:
    """A new file or folder beside ``target``, gone at the end unless it was renamed.

    What killed processes left of earlier ones of the same target is removed first.

    Args:
        target: what it will replace; its folder must exist.
        folder: make a folder.

    Yields:
        its path, and its descriptor, open and locked; of a file, for writing.

    Raises:
        OSError: it cannot be made.
    """
    sweep(target)
    while True:
        path = target.with_name(f"{_stem(target)}.{secrets.token_hex(6)}.tmp")
        if os.path.lexists(path):
            continue
        descriptor = -1
        try:
            if folder:
                path.mkdir()
            flags = os.O_RDONLY if folder else os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(path, flags | PRIVATE, 0o666)
            if _lock(path, descriptor):
                yield path, descriptor
                return
        finally:  # also where a signal came before the descriptor was known
            if descriptor >= 0:
                os.close(descriptor)
            _remove(path, folder)


def sweep(target: Path) -> None:
    """Remove what killed processes left beside ``target``; what a living one is filling stays."""
    ours = re.compile(re.escape(_stem(target)) + r"\.[0-9a-f]{12}\.tmp")
    try:
        found = [entry for entry in os.scandir(target.parent) if ours.fullmatch(entry.name)]
    except OSError:
        return
    for entry in found:
        folder = entry.is_dir(follow_symlinks=False)
        mode = os.O_RDONLY if folder else os.O_RDWR  # a network file system locks only what is open for writing
        with contextlib.suppress(OSError):
            descriptor = os.open(entry.path, mode | PRIVATE | NO_LINK | NO_WAIT)
            try:
                lock(descriptor)
                _remove(Path(entry.path), folder)
            finally:
                os.close(descriptor)


def flush(path: Path) -> None:
    """Hand a file or folder to the disk; a folder where its file system can.

    Raises:
        OSError: the file cannot be flushed.
    """
    descriptor = os.open(path, os.O_RDONLY | PRIVATE)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> bool:
    """False if another process took it for abandoned in the moment between making and locking."""
    try:
        lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: nobody sweeps there either
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _stem(target: Path) -> str:
    return f".{target.name[:_LONGEST_NAME]}"


def _remove(path: Path, folder: bool) -> None:
    if folder:
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
