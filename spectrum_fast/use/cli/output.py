"""A result file: can it be written, asked before the work; and no result lost if it cannot, after it."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from pathlib import Path

from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.errors import ScanFileError, UsageError
from spectrum_fast.scanning.options import ScanOptions


def require_writable(path: Path, option: str, kind: str = "a JSON file") -> None:
    """Find out before a long scan whether its file can be written at the end.

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


def save_scan(result: Scan, path: Path) -> Path:
    """Write the scan file, and return its path; if that fails, write it into the system's temporary folder and say so.

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
    return path


def file_named_after(model: str, options: ScanOptions) -> Path:
    """The scan file where none was named, in the working folder; of a difference ``tuned-minus-base.scan.json``."""
    between = "-minus-" if options.minus else "-plus-"
    name = between.join(_last_part(one) for one in (model, options.minus or options.plus) if one is not None)
    return Path(f"{name}.scan.json")


def _last_part(model: str) -> str:
    """Of a model's name, as far as it may be in that of a file.

    >>> _last_part("org/name@main"), _last_part("https://host/m/model.safetensors?key=x")
    ('name', 'model')
    """
    path = Path(model)
    name = path.resolve().name if path.exists() else re.split(r"[@?#]", model)[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^-.0-9A-Za-z_]", "-", _FILE.sub("", name)) or "model"


def free_name(path: Path, result: Scan) -> Path:
    """``NAME.scan.json``, or the first of ``NAME.2.scan.json`` and so on that is free or holds this same scan."""
    stem = path.name.removesuffix(".scan.json")
    names = (path if count == 1 else path.with_name(f"{stem}.{count}.scan.json") for count in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name) or _holds(name, result))


def _holds(path: Path, result: Scan) -> bool:
    """Whether the file is a scan of the same weights, by the same rule, of the same modules."""
    try:
        found = load_scan(path)
    except ScanFileError:
        return False
    same = all(found.provenance.get(key) == result.provenance.get(key) for key in _DECIDING)
    names, wanted = ({entry.name for entry in (*scan.modules, *scan.failures)} for scan in (found, result))
    return same and found.criterion == result.criterion and names == wanted


_FILE = re.compile(r"\.(safetensors|gguf)$")
_DECIDING = ("fingerprint", "content", "minus", "plus", "method", "precision", "tolerance")
"""What a scan says of the weights that it is of, and of how they were scored."""
