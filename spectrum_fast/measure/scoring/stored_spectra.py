"""All singular values of a scan's modules, in a file beside that of the scan.

``scan.json`` has ``scan.spectra.safetensors``: for each module a float32 tensor (2, n) under its name, the values
descending and above them, rounded up, the bounds on their absolute errors (rounding to float32 included). The file's
metadata holds the SHA-256 of the scan file, so that spectra of another scan are never taken for its own.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spectrum_fast.errors import ScanFileError, TensorError
from spectrum_fast.files import write_bytes_atomic
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.record import SingularValues


def spectra_path(scan_file: str | os.PathLike[str]) -> Path:
    """Where the spectra of a scan file lie.

    >>> spectra_path("/tmp/scan.json").name
    'scan.spectra.safetensors'
    """
    return Path(scan_file).with_suffix(".spectra.safetensors")


def spectra_bytes(sides: Iterable[int]) -> int:
    """Bytes of the values and bounds of matrices with these short sides."""
    return sum(8 * side for side in sides)


def as_stored(found: SingularValues) -> SingularValues:
    """The same as the file holds it, so that a scan is the same whether it was interrupted or not.

    Raises:
        TensorError: a value is no float32 number.
    """
    with np.errstate(over="ignore"):
        values = found.values.astype(np.float32)
        bounds = found.bounds + np.abs(found.values - values)
        rounded = bounds.astype(np.float32)
    if not np.isfinite(values).all():
        raise TensorError("has singular values beyond float32, which spectra are stored in; scan without them")
    up = np.where(rounded < bounds, np.nextafter(rounded, np.float32(np.inf)), rounded)
    largest = np.finfo(np.float32).max
    return SingularValues(values.astype(np.float64), np.minimum(up, largest).astype(np.float64))


def to_text(found: SingularValues) -> str:
    """For a line of a journal."""
    return base64.b64encode(_pair(found).tobytes()).decode()


def from_text(text: str) -> SingularValues:
    """Back.

    Raises:
        ValueError: it is none.
    """
    return _unpair(np.frombuffer(base64.b64decode(text, validate=True), np.float32).reshape(2, -1))


def write_spectra(modules: Iterable[ModuleScore], scan_text: str, scan_file: str | os.PathLike[str]) -> None:
    """Write the spectra that the modules have beside their scan file, whole or not at all; nothing if they have none.

    Raises:
        ScanFileError: the target cannot be written.
    """
    pairs = {one.name: _pair(one.singular_values) for one in modules if one.singular_values is not None}
    if pairs:
        data = save(pairs, {"scan": _digest(scan_text)})
        write_bytes_atomic(spectra_path(scan_file), data, error=ScanFileError)


def with_spectra(
    modules: tuple[ModuleScore, ...], scan_text: str, scan_file: str | os.PathLike[str]
) -> tuple[ModuleScore, ...]:
    """The modules with the spectra that lie beside the scan's file; as they are where none do, or those of another.

    Raises:
        ScanFileError: the file is damaged.
    """
    path = spectra_path(scan_file)
    if not path.is_file():
        return modules
    try:
        with safe_open(path, "numpy") as file:
            if file.metadata()["scan"] != _digest(scan_text):
                return modules
            found = {name: _unpair(file.get_tensor(name)) for name in file.offset_keys()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as cause:
        raise ScanFileError(f"{path}: expected the spectra of {scan_file}, found {cause}; scan again") from cause
    return tuple(replace(module, singular_values=found.get(module.name)) for module in modules)


def _pair(found: SingularValues) -> npt.NDArray[np.float32]:
    return np.stack([found.values, found.bounds]).astype(np.float32)


def _unpair(pair: npt.NDArray[np.float32]) -> SingularValues:
    if pair.dtype != np.float32 or pair.ndim != 2 or len(pair) != 2:
        raise ValueError(f"{pair.dtype} of shape {pair.shape}")
    values, bounds = pair.astype(np.float64)
    if not np.isfinite(pair).all() or (pair < 0).any():
        raise ValueError("a value or a bound that is no finite number >= 0")
    return SingularValues(values, bounds)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
