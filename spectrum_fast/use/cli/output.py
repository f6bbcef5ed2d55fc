"""A result file: can it be written, asked before the work; and no result lost if it cannot, after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.errors import ScanFileError, UsageError


def require_writable(path: Path, option: str, kind: str = "a JSON file") -> None:
    """Find out before a long scan whether its file can be written at the end.

    Args:
        path: the file to write; may exist.
        option: how the user named it, for messages.
        kind: what will be written, for messages.

    Raises:
        UsageError: it is a folder, a checkpoint's file, or its folder is missing or not writable.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{option} {path}: expected a file to write, found a folder; name a file inside it")
    if target.suffix == ".safetensors":
        raise UsageError(f"{option} {path}: expected {kind} to write, found the name of a checkpoint's file")
    if target.exists() and not target.is_file():
        return  # a pipe or a device such as /dev/stdout is opened when it is written
    if not target.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {target.parent}; make it first or choose another")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"{option} {path}: expected a folder that can be written, found {target.parent} without that right; "
            "choose another"
        )


def save_scan(result: Scan, path: Path) -> None:
    """Write the scan file; if that fails now, write it into the system's temporary folder and say so.

    Raises:
        ScanFileError: the target cannot be written; the message names the file that was written instead, if one was.
    """
    try:
        result.save(path)
    except ScanFileError as error:
        try:
            descriptor, rescue = tempfile.mkstemp(prefix="spectrum-fast-scan-", suffix=".json")
            os.close(descriptor)
            result.save(rescue)
        except (OSError, ScanFileError):
            raise error from None
        raise ScanFileError(f"{error}; the scan was saved as {rescue} instead") from error
