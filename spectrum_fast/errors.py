"""Every error this package raises on purpose.

A message says which file or tensor, what was expected, what was found, and what to do. One base class, so that
``except SpectrumFastError`` catches what we meant to say and nothing else; the command line turns it into one line on
stderr and exit code 2.
"""

from __future__ import annotations


class SpectrumFastError(Exception):
    """Base class of all errors raised on purpose."""


class CheckpointError(SpectrumFastError):
    """A checkpoint, index or safetensors header is missing, broken or unsafe."""


class UnsupportedDtypeError(CheckpointError):
    """A tensor's storage type is not decoded by this version; raw codes are never scored."""


class BackendUnavailableError(SpectrumFastError):
    """A backend, device or method that was asked for by name cannot run here."""


class TensorError(SpectrumFastError):
    """One tensor cannot be scored (NaN, infinity, no values); a scan records it and goes on."""


class ScanFileError(SpectrumFastError):
    """A scan or published result file cannot be read or does not hold what it should."""


class SelectionError(SpectrumFastError):
    """A selection is empty, refers to parameters that do not exist, or rests on an incomplete scan."""


class UsageError(SpectrumFastError):
    """An argument is out of range or contradicts another."""


class JournalError(SpectrumFastError):
    """A scan's journal belongs to another scan, is in use by one, or cannot be read or written."""


class RankError(SpectrumFastError):
    """A process of several cannot tell which one it is, or one of them has been lost."""


class PartsError(SpectrumFastError):
    """The parts of a scan are not all there, or not of one scan."""


class OutOfMemoryError(SpectrumFastError):
    """Memory has run out; what was finished is safe."""
