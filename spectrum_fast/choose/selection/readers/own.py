"""This package's own way, exact names on any model: two lines in a script around TRL, transformers, accelerate..."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.formats import write_selection
from spectrum_fast.choose.selection.model.apply import apply_selection
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.read.checkpoint.naming import module_name

if TYPE_CHECKING:
    from torch import nn

    from spectrum_fast.choose.selection.selection import Selection


def read_as_applied(selection: Selection, model: nn.Module) -> Reading:
    """What :func:`~spectrum_fast.choose.selection.model.apply.apply_selection` frees in the model itself."""
    entries = len(selection.names)
    try:
        applied = apply_selection(selection, model, strict=False, partial="mask")
    except SelectionError as error:
        return Reading(entries=entries, problem=str(error))
    trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    kept = {name: mask.keep for name, mask in applied.masks.items()}
    return Reading(parameters=trained, entries=entries, unmatched=applied.unmatched, kept=kept)


TRL = Reader(
    name="trl",
    rule="`load_selection(...).apply(model)`: exact names, wrappers understood",
    write=lambda wanted: write_selection(wanted.selection, "json"),
    read=lambda text, model: read_as_applied(parse_selection(text, "the file"), model),
    usage='spectrum_fast.load_selection("{file}").apply(model{masked})  # then SFTTrainer(model, ...), or any other',
    holds=True,
)


def _write_names(wanted: Wanted) -> str:
    homes = (module_name(parameter).removesuffix(".bias") for parameter in wanted.parameters)
    return "".join(f"{home}\n" for home in dict.fromkeys(homes))


NAMES = Reader(
    name="names",
    rule="one module of the running model a line, exact",
    write=_write_names,
    read=TRL.read,
    usage="free the parameters of the modules named in {file}, and freeze all others",
)
