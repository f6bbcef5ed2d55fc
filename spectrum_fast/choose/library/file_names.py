"""File names of a library, and what they say.

``snr_results_{slug}.json`` and its twin ``snr_results_{slug}_sorted.json`` are the reference's scores, which axolotl
reads too. ``scan_{slug}.{criterion}.json`` is the same scan whole, with thresholds, shapes and error bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_REFERENCE = re.compile(r"snr_results_(?P<slug>.+?)(?P<sorted>_sorted)?\.json")
_WHOLE = re.compile(r"scan_(?P<slug>.+)\.(?P<criterion>spectrum|mp)\.json")


def slug(model: str) -> str:
    """The model's name in file names: ``/`` and ``_`` become ``-``; dots and case stay.

    >>> slug("meta-llama/Meta-Llama-3.1-8B")
    'meta-llama-Meta-Llama-3.1-8B'
    """
    return model.replace("/", "-").replace("_", "-")


def whole_file_name(model: str, criterion: str) -> str:
    """Name of the file that holds a whole scan."""
    return f"scan_{slug(model)}.{criterion}.json"


def reference_file_name(model: str) -> str:
    """Name of the file that the reference, and axolotl, read."""
    return f"snr_results_{slug(model)}.json"


def stored_files(names: Iterable[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Files by ``(slug, criterion)``, the one to read first before the others; other names are passed over.

    Args:
        names: paths inside the library, ``/`` between folders.
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in names:
        last = name.rpartition("/")[2]
        if found := _WHOLE.fullmatch(last):
            groups.setdefault((found["slug"], found["criterion"]), []).append((0, name))
        elif found := _REFERENCE.fullmatch(last):
            groups.setdefault((found["slug"], "spectrum"), []).append((2 if found["sorted"] else 1, name))
    return {key: tuple(name for _, name in sorted(files)) for key, files in sorted(groups.items())}
