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

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from spectrum_fast.choose.selection.formats.name_lists import (
    can_carry_adapter,
    format_names,
    format_peft,
    read_list,
    read_names,
)
from spectrum_fast.choose.selection.formats.own_json import format_own, read_own
from spectrum_fast.choose.selection.formats.reference_json import format_reference, format_reference_sorted
from spectrum_fast.choose.selection.formats.reference_yaml import (
    KEY,
    format_reference_yaml,
    header_modules,
    parse_yaml,
    read_reference_yaml,
)
from spectrum_fast.choose.selection.formats.scan_file import read_scan_text
from spectrum_fast.choose.selection.fused import competing_modules
from spectrum_fast.errors import ScanFileError, SelectionError, UsageError
from spectrum_fast.measure.scoring.json_fields import ABSENT
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.scoring.strict_json import parse_json

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan
    from spectrum_fast.choose.selection.selection import Selection

SELECTION_FORMATS: dict[str, Callable[[Selection], str]] = {
    "json": format_own,
    "axolotl": format_reference_yaml,
    "peft": format_peft,
    "names": format_names,
}
"""Formats made from a selection."""

SCAN_FORMATS: dict[str, Callable[[Scan], str]] = {
    "reference": format_reference,
    "reference-sorted": format_reference_sorted,
}
"""Formats made from a whole scan: all scores, whatever is selected."""

FORMATS = ("json", "axolotl", "reference", "reference-sorted", "peft", "names")
"""All format names, as on the command line."""


def write_selection(selection: Selection, output_format: str = "json") -> str:
    """The text of a selection in one of :data:`SELECTION_FORMATS`.

    All formats but ``json`` name whole parameters: their readers cannot free a part of one. The text is read back and
    compared before it is returned, so that no name can say something else in a file than in the selection.

    Raises:
        UsageError: unknown format, or one that is made from a scan.
        SelectionError: the format cannot hold a name: it would be read back as something else.
    """
    if output_format in SCAN_FORMATS:
        raise UsageError(f"format {output_format!r} holds the scores of a whole scan, found a selection")
    if output_format not in SELECTION_FORMATS:
        raise UsageError(f"unknown format {output_format!r}: expected one of {', '.join(FORMATS)}")
    if output_format == "json":
        return _proved(format_own(selection), "json", vars(selection), lambda text: read_selection_text(text, "it"))
    selection = selection.whole_parameters()
    names = _NAMES_IN.get(output_format, lambda selection: selection.names)(selection)
    text = SELECTION_FORMATS[output_format](selection)
    return _proved(text, output_format, dict.fromkeys(names), lambda text: _names_in(text, output_format))


def write_scores(scan: Scan, output_format: str = "reference") -> str:
    """The text of a scan's scores in one of :data:`SCAN_FORMATS`, read back and compared likewise.

    Raises:
        SelectionError: the format cannot hold a name.
    """

    def scores(modules: Iterable[ModuleScore]) -> dict[str, float]:
        return {module.name: module.rank_value for module in modules}

    text, wrote = SCAN_FORMATS[output_format](scan), scores(competing_modules(scan))
    return _proved(text, output_format, wrote, lambda text: scores(read_scan_text(text, "it")["modules"]))


def _proved(text: str, output_format: str, wrote: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]) -> str:
    """The text, if reading it back gives what was written."""
    try:
        found = read(text)
        wrong = next((key for key in {**wrote, **found} if wrote.get(key, ABSENT) != found.get(key, ABSENT)), None)
        problem = "" if wrong is None else f"{wrong!r} is not what it was"
    except (SelectionError, ScanFileError) as error:
        problem = str(error)
    if problem:
        raise SelectionError(
            f"format {output_format!r} cannot hold this: read back, {problem}; leave the module out (exclude), or "
            "choose format 'json'"
        )
    return text


def _names_in(text: str, output_format: str) -> dict[str, Any]:
    """The names that a text says, and what it says beside them."""
    read = read_selection_text(text, "it")
    names = dict.fromkeys([*read.get("always", ()), *(module.name for module in read["modules"])])
    keys = set(parse_yaml(text, "it")) - {KEY.rstrip(":")} if output_format == "axolotl" else ()
    return names | dict.fromkeys(keys, "a key of its own")


_NAMES_IN: dict[str, Callable[[Selection], Iterable[str]]] = {
    "axolotl": lambda selection: [*header_modules(selection), *selection.names],
    "peft": lambda selection: [module.name for module in selection.modules if can_carry_adapter(module)],
}
"""What the formats that do not hold exactly the names of a selection hold."""


def read_selection_text(text: str, source: str) -> dict[str, Any]:
    """The fields of the selection that a text holds, in whatever format; those that it does not know are not there.

    Raises:
        SelectionError: it is in none of the formats.
    """
    start = text.lstrip()[:1]
    if start in ("{", "["):
        document = parse_json(text, source, SelectionError)
        return read_own(document, source) if isinstance(document, dict) else read_list(document, source)
    if any(line.startswith(KEY) for line in text.splitlines()):
        return read_reference_yaml(text, source)
    return read_names(text, source)
