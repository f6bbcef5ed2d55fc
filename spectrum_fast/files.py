"""Files written whole or not at all.

A result is written to a temporary file in the folder of its target, flushed to the disk, read back and renamed over the
target in one step. Whatever goes wrong on the way (no space, no right, a kill), the file that stood there before is
untouched; what a kill leaves of a temporary file is removed by the next one who writes there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.system import set_mode
from spectrum_fast.temporary import flush, temporary_beside


def write_text_atomic(path: str | Path, text: str, *, error: type[SpectrumFastError] = SpectrumFastError) -> None:
    r"""Write ``text`` as UTF-8 with ``\n`` line ends to ``path``, whole or not at all.

    Args:
        path: target; an existing regular file is replaced (its permissions are kept), a symbolic link is followed, a
            pipe or a device such as ``/dev/stdout`` is written to directly.
        text: the content.
        error: class raised, so that a caller's message has the caller's type.

    Raises:
        SpectrumFastError: of class ``error``; the text cannot be encoded, or the target cannot be written. A file that
            was there before is unchanged.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise error(
            f"{path}: cannot be written as UTF-8: found {cause.object[cause.start : cause.end]!r} "
            f"at character {cause.start}; the file is unchanged"
        ) from cause
    write_bytes_atomic(path, data, error=error)


def write_bytes_atomic(path: str | Path, data: bytes, *, error: type[SpectrumFastError] = SpectrumFastError) -> None:
    """Write ``data`` to ``path``, whole or not at all; see :func:`write_text_atomic`.

    Raises:
        SpectrumFastError: of class ``error``; the target cannot be written. A file that was there before is unchanged.
    """
    target = Path(os.path.realpath(path))
    mode = None  # of what stands there
    try:
        with contextlib.suppress(FileNotFoundError):
            mode = target.stat().st_mode
        if mode is not None and stat.S_ISDIR(mode):
            raise error(f"{path}: expected a file to write, found a folder; name a file inside it")
        if mode is not None and not stat.S_ISREG(mode):
            target.write_bytes(data)  # a pipe or a device has no old content to keep
            return
        _replace(target, data, mode)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        if not target.parent.is_dir():
            reason = f"there is no folder {target.parent}"
        raise error(
            f"{path}: cannot be written: {reason}; what was there before is unchanged; "
            "choose another target or make room and rights for this one"
        ) from cause


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    """Write beside ``target``, flush to the disk, rename over it."""
    with temporary_beside(target) as (path, descriptor):
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
        if path.read_bytes() != data:
            raise OSError("read back, it is not what was written")
        if mode is not None:
            set_mode(path, descriptor, stat.S_IMODE(mode))
        os.replace(path, target)
    with contextlib.suppress(OSError):  # the data is safe
        flush(target.parent)


def read_text(path: str | Path, *, error: type[SpectrumFastError] = SpectrumFastError) -> str:
    """Read a whole UTF-8 text file (a byte order mark is dropped).

    Raises:
        SpectrumFastError: of class ``error``; the file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise error(
            f"{path}: expected UTF-8 text, found the byte {cause.object[cause.start]:#04x} at offset {cause.start}"
        ) from cause
