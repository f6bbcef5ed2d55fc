"""A collection of scans, in a folder or a dataset on the hub, named as the reference names its published results.

>>> from spectrum_fast.choose.library import open_library
>>> open_library("model_snr_results").load("Qwen/Qwen2-7B")  # doctest: +SKIP
"""

from __future__ import annotations

from spectrum_fast.choose.library.collection import Library, LibraryEntry, open_library
from spectrum_fast.choose.library.index import FoundModule, LibraryIndex

__all__ = ["FoundModule", "Library", "LibraryEntry", "LibraryIndex", "open_library"]
