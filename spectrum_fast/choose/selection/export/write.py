"""A selection written for one reader, in the names of the running model, and proved by the reader's own rule.

The scan knows the checkpoint's names; a trainer sees those of the model that transformers makes of it, which may be
renamed and fused. So the modules are selected as the running model holds them (experts that it fuses compete as one
parameter), the reader's file is written for exactly these parameters, and its rule is applied to the model's skeleton.
A file by which the reader would train anything else is an error, and nothing is written.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.export.kappa_targets import select_by_kappa
from spectrum_fast.choose.selection.export.low_ranks import add_rank_pattern, module_ranks
from spectrum_fast.choose.selection.export.proof import prove
from spectrum_fast.choose.selection.model.resolve import resolve_selection
from spectrum_fast.choose.selection.model.scan_view import as_fused_in
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton
from spectrum_fast.choose.selection.options import RankOptions, SelectOptions
from spectrum_fast.choose.selection.readers import find_reader
from spectrum_fast.choose.selection.readers.reading import Reader, shapes_of
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint.naming import role
from spectrum_fast.words import count_of

if TYPE_CHECKING:
    from torch import nn

_MOST = 50
"""Percent of what is trained in embeddings and head above which leaving them frozen is advised."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is written for a reader.

    Attributes:
        reader: whom it is for.
        text: the file.
        selection: what it says, in names of the model.
        trained: numbers that the reader trains, or that the matrices have which it hangs adapters on.
        total: numbers in the model.
        ends: how many of ``trained`` are in embeddings and heads.
        in_part: parameters of which only some experts are trained.
        note: why the proof is about the checkpoint's files and not the running model; empty where it is not.
    """

    reader: Reader
    text: str
    selection: Selection
    trained: int
    total: int
    ends: int
    in_part: int
    note: str

    def summary(self, path: str, memory: str = "") -> str:
        """What a person must know, and what to tell the reader.

        Args:
            path: where the text was written.
            memory: what training takes, if that is known.
        """
        deed = "adapts matrices of" if self.reader.adapts else "trains"
        share = 100 * self.trained / self.total
        lines = [f"{self.reader.name} {deed} {self.trained:,} of {self.total:,} parameters ({share:.1f} %)"]
        if self.ends:
            lines[0] += f", {ends_words(self.ends, self.trained)}"
        elif self.reader.adapts and self.selection.always:
            lines[0] += f"; not {', '.join(self.selection.always)}: name them in modules_to_save to train them too"
        if memory:
            lines.append(memory)
        if self.in_part:
            lines.append(
                f"the other experts of {count_of(self.in_part, 'fused parameter')} get no gradient; they stay as they "
                "are if the optimizer decays no weights (weight_decay 0, as by default)"
            )
        if self.note:
            lines.append(f"not proved on the running model: {self.note}")
        usage = self.reader.usage.format(file=path, masked=', partial="mask"' if self.in_part else "")
        return "\n".join([*lines, f"to use it: {usage}"])


def ends_words(ends: int, trained: int) -> str:
    """What embeddings and head take of what is trained, and how to leave them out where that is most.

    >>> ends_words(30, 120)
    '30 of them (25 %) in embeddings and head'
    """
    share = 100 * ends / trained
    advice = " (--always none leaves them frozen)" if share > _MOST else ""
    return f"{ends:,} of them ({share:.0f} %) in embeddings and head{advice}"


def export_selection(
    scan: Scan,
    reader: str,
    skeleton: ModelSkeleton,
    options: SelectOptions,
    ranks: RankOptions = RankOptions(),  # noqa: B008 - frozen
) -> Export:
    """Select, and write it for a reader.

    With a rule of ranks, PEFT's file says the rank of every target.

    Raises:
        SelectionError: the selection does not fit the model, or the reader cannot train exactly what it says.
        UsageError: an argument is out of range.
    """
    found = find_reader(reader)
    if ranks.ranks is not None:
        if not found.adapts:
            raise UsageError(f"--ranks is for adapters, and {found.name} trains whole parameters; write --for peft")
        found = replace(found, usage=found.usage.replace(", r=16", ""))
    model, ends = skeleton.module, set[str]()
    seen = as_fused_in(scan, model)
    if found.adapts and (options.criterion or scan.criterion) == "kappa":
        selection, text = select_by_kappa(seen, model, options)
        reading = found.read(text, model)
    else:
        selection = select_with(seen, options)
        text, reading, applied = prove(found, selection, skeleton)
        if not found.adapts:
            ends = {name for entry, names in applied.matched.items() if role(entry) != "other" for name in names}
    shapes = shapes_of(model)
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    return Export(
        reader=found,
        text=text if ranks.ranks is None else _with_ranks(text, seen, model, ranks),
        selection=selection,
        trained=reading.values(shapes),
        total=sum(counts.values()),
        ends=sum(counts.get(name, 0) for name in ends),
        in_part=len(reading.kept),
        note=skeleton.note,
    )


def _with_ranks(text: str, seen: Scan, model: nn.Module, options: RankOptions) -> str:
    """The targets with the ranks of what the model holds in each: of several the largest."""
    ranks = module_ranks(seen, options)
    everything = select_with(seen, SelectOptions(100.0, always="none", allow_incomplete=True))
    by_target: dict[str, int] = {}
    for entry, parameters in resolve_selection(everything, model).matched.items():
        for name in parameters:
            by_target[name] = max(ranks[entry], by_target.get(name, 0))
    said = json.loads(text)
    wanted = {name: f"{name}.weight" for name in said["target_modules"] or ()}
    wanted |= {name: name for name in said.get("target_parameters") or ()}
    return add_rank_pattern(text, {target: by_target[name] for target, name in wanted.items()})
