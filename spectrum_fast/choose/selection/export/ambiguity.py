r"""What an exported selection means to its readers, and where that is not what it says.

The entries of ``unfrozen_parameters`` are names, but their readers take them in three ways:

- axolotl: ``re.match`` with dots escaped, so an entry is a prefix: ``...mlp.gate`` also frees ``...mlp.gate_proj``;
- line-parsing scripts: ``re.match`` with dots as they are, so a dot is any character;
- the reference's README: ``entry in name``, so an entry may start anywhere, and ``^...$`` lines match nothing.

:func:`export_warnings` says which other modules of the scan an entry would free under any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats.name_lists import can_carry_adapter
from spectrum_fast.choose.selection.formats.reference_yaml import REFERENCE_HEADER, header_modules
from spectrum_fast.choose.selection.ranking import names_in
from spectrum_fast.choose.selection.readers.name_index import NameIndex
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.read.checkpoint.naming import module_type
from spectrum_fast.words import count_of

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan


def export_warnings(selection: Selection, scan: Scan, output_format: str) -> list[str]:
    """Sentences for stderr about what readers of the exported file will do differently from the selection."""
    warnings = []
    selection = selection.whole_parameters()
    if not selection.modules:
        warnings.append(
            "no module is selected beside those trained always: every group is too small for this percentage"
        )
    if output_format == "axolotl":
        warnings += _header_warnings(selection, scan)
        warnings += _prefix_warnings(selection, scan)
    if output_format == "peft":
        warnings += _peft_warnings(selection)
    if output_format in ("reference", "reference-sorted") and scan.failures:
        lost = count_of(len(scan.failures), "tensor without a score is", "tensors without a score are")
        warnings.append(f"{lost} left out: the layout has no place for them")
    return warnings


def unintended_matches(entries: Iterable[str], names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Modules that an entry frees although no entry names them.

    Args:
        entries: selected module names, as written to the file.
        names: all module names of the model.

    Yields:
        ``(entry, other module, reading)``; ``reading`` is the first of ``axolotl``, ``unescaped dots``, ``substring``
        under which it happens.
    """
    wanted = list(dict.fromkeys(entries))
    index = NameIndex(names, wanted)
    named = set(wanted)
    for entry in wanted:
        reported = named | {f"{entry}.bias"}  # the bias of a selected module is trained with it by every reader
        for reading, found in (
            ("axolotl", index.starting_with(entry)),
            ("unescaped dots", index.matching_dots(entry)),
            ("substring", index.containing(entry)),
        ):
            for other in found:
                if other not in reported:
                    reported.add(other)
                    yield entry, other, reading


def _header_warnings(selection: Selection, scan: Scan) -> list[str]:
    warnings = []
    header = header_modules(selection)
    beyond = [name for name in header if name not in REFERENCE_HEADER]
    if beyond:  # those of the reference are frozen in such scripts with its own files too
        warnings.append(
            "scripts that test `entry in name` (the reference's README) do not see the lines "
            f"{', '.join(f'^{name}.weight$' for name in header)} and leave these frozen; axolotl trains them"
        )
    if selection.always_rule != "default":
        return warnings
    if beyond:
        warnings.append(f"the reference's header would miss {', '.join(beyond)}; lines for them are added")
    left_out = {entry.name for entry in scan.skipped}
    known = set(names_in(scan)) - left_out
    unknown = [name for name in header if name not in known and (scan.published or name in left_out)]
    if unknown:
        warnings.append(
            f"the header always names {', '.join(unknown)}, not scored here; axolotl trains what the model has of it"
        )
    return warnings


def _prefix_warnings(selection: Selection, scan: Scan) -> list[str]:
    """One warning for each pair of types and reading, with a count and an example."""
    header = set(header_modules(selection))
    entries = [module.name for module in selection.modules]
    cases: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for entry, other, reading in unintended_matches(entries, names_in(scan)):
        if other not in header:
            cases.setdefault((reading, module_type(entry), module_type(other)), []).append((entry, other))
    return [
        f"{_READINGS[reading]} also trains {pairs[0][1]} because of the entry {pairs[0][0]}"
        + (f" ({len(pairs)} such pairs of {first} and {second})" if len(pairs) > 1 else "")
        for (reading, first, second), pairs in cases.items()
    ]


_READINGS = {
    "axolotl": "axolotl, which matches prefixes,",
    "unescaped dots": "a script that matches with unescaped dots",
    "substring": "a script that tests `entry in name`",
}


def _peft_warnings(selection: Selection) -> list[str]:
    warnings = []
    flat = [module.name for module in selection.modules if not can_carry_adapter(module)]
    if flat:
        warnings.append(f"{len(flat)} selected tensors are no matrices and cannot carry an adapter: {flat[0]}, ...")
    if selection.always:
        warnings.append(
            f"{', '.join(selection.always)} are not in the list: name them in PEFT's modules_to_save to train them too"
        )
    return warnings
