"""Every format a selection or its scores are written in, and read back from.

=====================  ==================================================================  ===========  =========
format                 what                                                                made from    read back
=====================  ==================================================================  ===========  =========
``json``               our own selection file, everything in it                            selection    yes
``axolotl``            the reference's YAML, ``unfrozen_parameters``                        selection    names
``peft``               JSON list for PEFT's ``target_modules``                             selection    names
``names``              plain names, one a line                                             selection    names
``reference``          the reference's scores ``{module: {"snr", "type"}}``                scan         as a scan
``reference-sorted``   its twin ``{type: {module: snr}}``                                  scan         as a scan
=====================  ==================================================================  ===========  =========
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from spectrum_fast.choose.selection.formats.file_names import ReferenceFileNames, reference_file_names, slug
from spectrum_fast.choose.selection.formats.name_lists import (
    can_carry_adapter,
    format_names,
    format_peft,
    parse_names,
    selection_from_list,
)
from spectrum_fast.choose.selection.formats.own_json import format_own, selection_from_own
from spectrum_fast.choose.selection.formats.reference_json import format_reference, format_reference_sorted
from spectrum_fast.choose.selection.formats.reference_yaml import (
    KEY,
    format_reference_yaml,
    header_modules,
    other_keys,
    parse_reference_yaml,
)
from spectrum_fast.choose.selection.records import Selection
from spectrum_fast.errors import ScanFileError, SelectionError, UsageError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.measure.scoring.fused import competing_modules
from spectrum_fast.measure.scoring.json_fields import ABSENT
from spectrum_fast.measure.scoring.records import ScanRecord
from spectrum_fast.measure.scoring.scan_file import parse_scan
from spectrum_fast.measure.scoring.strict_json import parse_json

__all__ = [
    "FORMATS",
    "SCAN_FORMATS",
    "SELECTION_FORMATS",
    "ReferenceFileNames",
    "load_selection",
    "parse_selection",
    "reference_file_names",
    "save_selection",
    "slug",
    "write_selection",
]

SELECTION_FORMATS: dict[str, Callable[[Selection], str]] = {
    "json": format_own,
    "axolotl": format_reference_yaml,
    "peft": format_peft,
    "names": format_names,
}
"""Formats made from a selection."""

SCAN_FORMATS: dict[str, Callable[[ScanRecord], str]] = {
    "reference": format_reference,
    "reference-sorted": format_reference_sorted,
}
"""Formats made from a whole scan: all scores, whatever is selected."""

FORMATS = ("json", "axolotl", "reference", "reference-sorted", "peft", "names")
"""All format names, as on the command line."""


def write_selection(source: Selection | ScanRecord, output_format: str = "json") -> str:
    """The text of ``source`` in a format.

    All formats but ``json`` name whole parameters: their readers cannot free a part of one. The text is read back and
    compared before it is returned, so that no name can say something else in a file than in the selection.

    Args:
        source: a selection for :data:`SELECTION_FORMATS`, a scan for :data:`SCAN_FORMATS`.
        output_format: one of :data:`FORMATS`.

    Raises:
        UsageError: unknown format, or it is made from the other kind of source.
        SelectionError: the format cannot hold a name: it would be read back as something else.
    """
    if output_format in SELECTION_FORMATS:
        if not isinstance(source, Selection):
            raise UsageError(f"format {output_format!r} is made from a selection, found a scan: select first")
        source = source if output_format == "json" else source.whole_parameters()
        text = SELECTION_FORMATS[output_format](source)
    elif output_format in SCAN_FORMATS:
        if not isinstance(source, ScanRecord):
            raise UsageError(f"format {output_format!r} holds the scores of a whole scan, found a selection")
        text = SCAN_FORMATS[output_format](source)
    else:
        raise UsageError(f"unknown format {output_format!r}: expected one of {', '.join(FORMATS)}")
    problem = _difference(source, text, output_format)
    if problem:
        raise SelectionError(
            f"format {output_format!r} cannot hold this: read back, {problem}; leave the module out (exclude), or "
            "choose format 'json'"
        )
    return text


def _difference(source: Selection | ScanRecord, text: str, output_format: str) -> str:
    """What ``text`` says otherwise than ``source`` when it is read back; empty if nothing."""
    try:
        if isinstance(source, ScanRecord):
            wrote = {module.name: module.rank_value for module in competing_modules(source)}
            read = {module.name: module.rank_value for module in parse_scan(text, "the text").modules}
        elif output_format == "json":
            wrote, read = source, parse_selection(text, "the text")
            return "" if wrote == read else "it is another selection"
        else:
            wrote = dict.fromkeys(_NAMES_IN.get(output_format, lambda selection: selection.names)(source))
            read = dict.fromkeys(parse_selection(text, "the text").names)
            if output_format == "axolotl":
                read |= dict.fromkeys(other_keys(text), "a key of its own")
    except (SelectionError, ScanFileError) as error:
        return str(error)
    wrong = next((name for name in {**wrote, **read} if wrote.get(name, ABSENT) != read.get(name, ABSENT)), None)
    return "" if wrong is None else f"{wrong!r} is not what it was"


_NAMES_IN: dict[str, Callable[[Selection], Iterable[str]]] = {
    "axolotl": lambda selection: [*header_modules(selection), *selection.names],
    "peft": lambda selection: [module.name for module in selection.modules if can_carry_adapter(module)],
}
"""What the formats that do not hold exactly the names of a selection hold."""


def save_selection(source: Selection | ScanRecord, path: str | Path, output_format: str = "json") -> None:
    """Write :func:`write_selection`'s text to a file, whole or not at all.

    Raises:
        SelectionError: the target cannot be written; an old file is unchanged.
        UsageError: see :func:`write_selection`.
    """
    write_text_atomic(path, write_selection(source, output_format), error=SelectionError)


def load_selection(path: str | Path) -> Selection:
    """Read a selection: our own JSON, the reference's YAML, a PEFT list or plain names; recognised by content.

    Raises:
        SelectionError: the file cannot be read or is none of these.
    """
    return parse_selection(read_text(path, error=SelectionError), str(path))


def parse_selection(text: str, source: str = "selection") -> Selection:
    """Read a selection from text; see :func:`load_selection`.

    Args:
        text: content of the file.
        source: what to call it in messages.
    """
    start = text.lstrip()[:1]
    if start in ("{", "["):
        document = parse_json(text, source, SelectionError)
        if isinstance(document, dict):
            return selection_from_own(document, source)
        return selection_from_list(document, source)
    if any(line.startswith(KEY) for line in text.splitlines()):
        return parse_reference_yaml(text, source)
    return parse_names(text, source)
