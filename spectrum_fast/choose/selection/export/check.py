"""What each reader of a selection would train on a model, and where they differ from what the selection says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats.name_lists import format_peft
from spectrum_fast.choose.selection.formats.reference_yaml import KEY, REFERENCE_HEADER, format_reference_yaml
from spectrum_fast.choose.selection.model.resolve import locate_entries
from spectrum_fast.choose.selection.model.skeleton import read_skeleton
from spectrum_fast.choose.selection.readers import axolotl, own, peft, scripts
from spectrum_fast.choose.selection.readers.axolotl import entries_of_yaml
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, shapes_of
from spectrum_fast.choose.selection.selection import Selection, parse_selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.files import read_text
from spectrum_fast.words import nearest_names

if TYPE_CHECKING:
    from torch import nn


READERS: dict[str, Reader] = {
    "spectrum-fast": own.TRL,
    **{reader.name: reader for reader in (axolotl.READER, scripts.LINE_PARSER, scripts.README, peft.READER)},
}
"""Readers in the order of a report."""


@dataclass(frozen=True, kw_only=True)
class ReaderReport:
    """What one reader would train.

    Attributes:
        reader: one of :data:`READERS`.
        reading: what it makes of the file.
        parameters: what it frees, in the order of the model; for ``peft`` the weights that get an adapter.
        values: numbers in them.
        share: of all numbers of the model, in [0, 1].
        wanted_values: numbers that the selection says to train with this reader.
        extra: parameters that the selection does not name for this reader.
        missing: parameters that the selection names and this reader leaves frozen.
    """

    reader: str
    reading: Reading
    parameters: tuple[str, ...]
    values: int
    wanted_values: int
    share: float
    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether it trains exactly what the selection says."""
        return not (self.extra or self.missing or self.reading.problem) and self.values == self.wanted_values


@dataclass(frozen=True, kw_only=True)
class SelectionCheck:
    """The readings of one selection on one model.

    Attributes:
        model: the model's name.
        note: why parameter names are those of the checkpoint; empty if they are those of the running model.
        total_values: numbers in all parameters of the model, tied ones once.
        reports: one for each reader asked for.
        lost: entries that match nothing in the model -> the nearest names in it. Of the reference's header, which is
            the same for every model, what the model does not have is no loss.
    """

    model: str
    note: str
    total_values: int
    reports: tuple[ReaderReport, ...]
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def agree(self) -> bool:
        """Whether every entry matches something and every reader trains what the selection says."""
        return not self.lost and all(report.agrees for report in self.reports)


def check_selection(
    selection: str | Path, model: str, *, readers: Collection[str] = tuple(READERS), names: str = "auto"
) -> SelectionCheck:
    """Find out what each reader would train.

    A reader reads the file itself where it is in its format, and else what this package exports of it. What the
    selection *says* is what :meth:`Selection.apply <spectrum_fast.choose.selection.selection.Selection.apply>` trains;
    where the file is no plain list of names (regular expressions, row ranges), it is what axolotl trains. For ``peft``
    it is those of its chosen weights that are matrices: adapters neither sit on norms nor replace training of
    embeddings.

    Args:
        selection: a file that :func:`spectrum_fast.load_selection` or axolotl reads.
        model: checkpoint folder, ``.safetensors`` file or hub id; only its headers are read.
        readers: which of :data:`READERS`.
        names: ``runtime``, ``checkpoint`` or ``auto``; see :mod:`spectrum_fast.choose.selection.model.skeleton`.

    Raises:
        SelectionError: the selection cannot be read by any reader.
        CheckpointError: the model cannot be opened.
        UsageError: unknown reader or names, or none.
    """
    unknown = [reader for reader in readers if reader not in READERS]
    if unknown or not readers:
        raise UsageError(f"unknown reader {', '.join(unknown) or '(none)'!r}: expected some of {', '.join(READERS)}")
    text, source = read_text(selection, error=SelectionError), str(selection)
    is_yaml = any(line.startswith(KEY) for line in text.splitlines())
    try:
        chosen = parse_selection(text, source)
    except SelectionError as error:
        if not is_yaml:
            raise
        chosen = error
    is_list = isinstance(chosen, Selection)
    yaml = format_reference_yaml(chosen) if is_list and not is_yaml else text
    entries_of_yaml(yaml, source)  # an error says which file
    skeleton = read_skeleton(model, names)
    readings = {name: _read_by(reader, yaml, chosen, skeleton.module) for name, reader in READERS.items()}
    shapes = shapes_of(skeleton.module)
    basis = readings["spectrum-fast" if is_list else "axolotl"]
    adapted = _adapter_targets(chosen, basis, shapes) if is_list else Reading()
    total = Reading(parameters=frozenset(shapes)).values(shapes)
    return SelectionCheck(
        model=skeleton.name,
        note=skeleton.note,
        total_values=total,
        reports=tuple(
            _report(reader, readings[reader], adapted if reader == "peft" else basis, shapes, total)
            for reader in dict.fromkeys(readers)
        ),
        lost=_lost(chosen, basis, skeleton.module),
    )


def _read_by(reader: Reader, yaml: str, chosen: Selection | SelectionError, model: nn.Module) -> Reading:
    """What it trains of the model; our own way and PEFT's go by the selection, if the file is one."""
    if reader not in (own.TRL, peft.READER):
        return reader.read(yaml, model)
    try:
        if isinstance(chosen, SelectionError):
            raise chosen
        return own.read_as_applied(chosen, model) if reader is own.TRL else reader.read(format_peft(chosen), model)
    except SelectionError as error:
        return Reading(problem=str(error))


def _lost(chosen: Selection | SelectionError, basis: Reading, model: nn.Module) -> dict[str, tuple[str, ...]]:
    if isinstance(chosen, SelectionError):
        unmatched, header = basis.unmatched, {f"^{name}.weight$" for name in REFERENCE_HEADER}
    else:
        unmatched, header = locate_entries(chosen, model).unmatched, set(REFERENCE_HEADER) & set(chosen.always)
    known = [name for name, _ in model.named_modules()] + [name for name, _ in model.named_parameters()]
    return {entry: tuple(nearest_names(entry, known)) for entry in unmatched if entry not in header}


def _adapter_targets(chosen: Selection, basis: Reading, shapes: Mapping[str, tuple[int, ...]]) -> Reading:
    """The weights that ``basis`` trains and that are matrices of ranked modules."""
    always = peft.read_as_peft(chosen.always, shapes).parameters
    return Reading(parameters=basis.parameters.intersection(peft.matrices(shapes)) - always)


def _report(
    reader: str, reading: Reading, wanted: Reading, shapes: Mapping[str, tuple[int, ...]], total: int
) -> ReaderReport:
    values, wanted_values = reading.values(shapes), wanted.values(shapes)
    missing = wanted.parameters - reading.parameters
    return ReaderReport(
        reader=reader,
        reading=reading,
        parameters=tuple(name for name in shapes if name in reading.parameters),
        values=values,
        wanted_values=wanted_values,
        share=values / total if total else 0.0,
        extra=tuple(name for name in shapes if name in reading.parameters - wanted.parameters),
        missing=() if reading.problem else tuple(name for name in shapes if name in missing),
    )
