"""A reader's file, proved: what its rule trains of the model is what the selection says, or nothing is written."""

from __future__ import annotations

from spectrum_fast.choose.selection.model.adapters import lora_targets
from spectrum_fast.choose.selection.model.apply import AppliedSelection, apply_selection
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.words import near_names_text


def prove(reader: Reader, selection: Selection, skeleton: ModelSkeleton) -> tuple[str, Reading, AppliedSelection]:
    """The reader's file, proved; what it makes of it; and what our own way trains."""
    applied = apply_selection(selection, skeleton.module, partial="mask" if reader.holds else "refuse")
    parameters = tuple(name for name, value in skeleton.module.named_parameters() if value.requires_grad)
    kept = {name: mask.keep for name, mask in applied.masks.items()}
    wanted = Wanted(selection=selection, model=skeleton.module, parameters=parameters, kept=kept)
    text = reader.write(wanted)
    targets = frozenset(parameters)
    if reader.adapts:
        modules, bare = lora_targets(selection, skeleton.module)
        targets = frozenset([*(f"{module}.weight" for module in modules), *bare])
    reading = reader.read(text, skeleton.module)
    if reading.problem:
        raise SelectionError(f"{reader.name} would refuse this selection: {reading.problem}; nothing was written")
    extra, missing = sorted(reading.parameters - targets), sorted(targets - reading.parameters)
    if extra or missing:
        name = (extra or missing)[0]
        deed = "also train" if extra else "not train"
        raise SelectionError(
            f"{reader.name} ({reader.rule}) would {deed} {name}{near_names_text(name, targets) if extra else ''}, so "
            f"nothing was written; leave its neighbours out or in together (--exclude, --always '{name}'), or write "
            "for another reader (--for trl takes any selection)"
        )
    for name in sorted(kept.keys() | reading.kept.keys()):
        if name not in kept or name not in reading.kept or not bool((kept[name] == reading.kept[name]).all()):
            raise SelectionError(f"{reader.name} would train other experts of {name}, so nothing was written")
    return text, reading, applied
