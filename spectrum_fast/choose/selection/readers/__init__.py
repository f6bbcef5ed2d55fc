"""The tools that train what a file names, one file each: its rule, what is written for it, how to use it.

A reader's rule is applied to the parameters of the running model before anything is written
(:mod:`spectrum_fast.choose.selection.export`), so what the file says is what is trained. Where the tool installs, its
rule is held to its own code in ``tests/choose/selection/readers/test_readers_in_tools.py``. A new reader is one file
here, one line in :data:`READERS` and one test.
"""

from __future__ import annotations

from spectrum_fast.choose.selection.readers import automodel, axolotl, llama_factory, ms_swift, own, peft, soup
from spectrum_fast.choose.selection.readers.reading import Reader
from spectrum_fast.errors import UsageError

__all__ = ["READERS", "Reader", "find_reader"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        axolotl.READER,
        peft.READER,
        own.TRL,
        ms_swift.READER,
        llama_factory.READER,
        automodel.READER,
        soup.READER,
        own.NAMES,
    )
}
"""Every reader that a selection can be written for, by name."""


def find_reader(name: str) -> Reader:
    """The reader called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in READERS:
        raise UsageError(f"unknown reader {name!r}: expected one of {', '.join(READERS)}")
    return READERS[name]
