"""A selection written for one reader, in the names of the running model, and proved by the reader's own rule.

The scan knows the checkpoint's names; a trainer sees those of the model that transformers makes of it, which may be
renamed and fused. So the modules are selected as the running model holds them (experts that it fuses compete as one
parameter), the reader's file is written for exactly these parameters, and its rule is applied to the model's skeleton.
A file by which the reader would train anything else is an error, and nothing is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from spectrum_fast.choose.selection.apply import AppliedSelection, apply_selection
from spectrum_fast.choose.selection.formats.reference_yaml import KEY, REFERENCE_HEADER
from spectrum_fast.choose.selection.kappa_targets import select_by_kappa
from spectrum_fast.choose.selection.low_ranks import add_rank_pattern, module_ranks
from spectrum_fast.choose.selection.model_skeleton import ModelSkeleton
from spectrum_fast.choose.selection.options import RankOptions, SelectOptions
from spectrum_fast.choose.selection.readers import find_reader
from spectrum_fast.choose.selection.readers.peft import adapter_targets
from spectrum_fast.choose.selection.readers.reading import Reader, Reading, Wanted, shapes_of
from spectrum_fast.choose.selection.resolve import ResolvedSelection, locate_entries, resolve_selection
from spectrum_fast.choose.selection.runtime_view import as_fused_in
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import Selection, parse_selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.read.checkpoint.naming import module_name, module_type, role
from spectrum_fast.words import count_of, near_names_text, nearest_names

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
        lines = [f"{self.reader.name} {deed} {self.trained:,} of {self.total:,} parameters ({self._percent():.1f} %)"]
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

    def _percent(self) -> float:
        return 100 * self.trained / self.total


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

    Args:
        scan: of the model's checkpoint.
        reader: one of :data:`spectrum_fast.choose.selection.readers.READERS`.
        skeleton: the model (:mod:`spectrum_fast.choose.selection.model_skeleton`).
        options: what to select.
        ranks: with a rule, PEFT's file says the rank of every target.

    Raises:
        SelectionError: the selection does not fit the model, or the reader cannot train exactly what it says.
        UsageError: an argument is out of range.
    """
    found = find_reader(reader)
    if ranks.ranks is not None:
        if not found.adapts:
            raise UsageError(f"--ranks is for adapters, and {found.name} trains whole parameters; write --for peft")
        found = replace(found, usage=found.usage.replace(", r=16", ""))
    if found.adapts and "kappa" in (options.criterion, scan.criterion) and options.criterion in (None, "kappa"):
        selection, text = select_by_kappa(scan, skeleton.module, options)
        reading = found.read(text, skeleton.module)
        text = _with_ranks(text, scan, skeleton, ranks)
        return _export(found, text, selection, reading, skeleton)
    selection = select_with(as_fused_in(scan, skeleton.module), options)
    text, reading, applied = _write(found, selection, skeleton)
    text = _with_ranks(text, scan, skeleton, ranks)
    return _export(found, text, selection, reading, skeleton, frozenset() if found.adapts else _ends(applied))


def _with_ranks(text: str, scan: Scan, skeleton: ModelSkeleton, options: RankOptions) -> str:
    """The targets with the ranks of what the model holds in each: of several the largest."""
    if options.ranks is None:
        return text
    seen = as_fused_in(scan, skeleton.module)
    ranks = module_ranks(seen, options)
    everything = select_with(seen, SelectOptions(100.0, always="none", allow_incomplete=True))
    by_target: dict[str, int] = {}
    for entry, parameters in resolve_selection(everything, skeleton.module).matched.items():
        for name in parameters:
            by_target[name] = max(ranks[entry], by_target.get(name, 0))
    said = json.loads(text)
    wanted = {name: f"{name}.weight" for name in said["target_modules"] or ()}
    wanted |= {name: name for name in said.get("target_parameters") or ()}
    return add_rank_pattern(text, {target: by_target[name] for target, name in wanted.items()})


def _export(
    reader: Reader,
    text: str,
    selection: Selection,
    reading: Reading,
    skeleton: ModelSkeleton,
    ends: frozenset[str] = frozenset(),
) -> Export:
    shapes = shapes_of(skeleton.module)
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    return Export(
        reader=reader,
        text=text,
        selection=selection,
        trained=reading.values(shapes),
        total=sum(counts.values()),
        ends=sum(counts.get(name, 0) for name in ends),
        in_part=len(reading.kept),
        note=skeleton.note,
    )


@dataclass(frozen=True, kw_only=True)
class Mended:
    """A selection file in the names of a model.

    Attributes:
        text: the file, of the same kind.
        replaced: what it said -> what it says instead, where that is another name.
        dropped: lines of the reference's header that the model has nothing for.
    """

    text: str
    replaced: Mapping[str, str]
    dropped: tuple[str, ...]


def mend_selection(text: str, source: str, skeleton: ModelSkeleton) -> Mended:
    """Write a selection file again, in the names of the model, and prove it.

    An entry that matches nothing becomes the nearest name, if that is near (nine tenths of the text) and of the same
    layer and expert.

    Args:
        text: the file, in any format of :func:`spectrum_fast.load_selection`.
        source: what to call it in messages.
        skeleton: the model.

    Raises:
        SelectionError: the file cannot be read, an entry has no near name, or the result does not fit the model.
    """
    selection = parse_selection(text, source)
    resolved = locate_entries(selection, skeleton.module)
    known = resolved.module_names()
    dropped = tuple(n for n in resolved.unmatched if n in selection.always and n in REFERENCE_HEADER)
    meant = {entry: _home_of(found) for entry, found in resolved.matched.items() if entry not in _parts(resolved)}
    for entry in resolved.unmatched:
        if entry not in dropped:
            near = [name for name in nearest_names(entry, known, cutoff=0.9) if _numbers(name) == _numbers(entry)]
            if not near:
                raise SelectionError(
                    f"{source}: {entry} matches nothing in {skeleton.name} and no name is near enough to replace it"
                    f"{near_names_text(entry, known)}; correct it or take it out"
                )
            meant[entry] = near[0]
    modules = {}
    for module in selection.modules:
        name = meant.get(module.name, module.name)
        modules[name] = replace(module, name=name, type=module_type(name))
    always = dict.fromkeys(meant.get(name, name) for name in selection.always if name not in dropped)
    mended = replace(
        selection,
        modules=tuple(module for name, module in modules.items() if name not in always),
        always=tuple(always),
        always_rule="custom" if always else "none",
    )
    reader = find_reader(_reader_of(text))
    return Mended(
        text=_write(reader, mended, skeleton)[0],
        replaced={entry: name for entry, name in meant.items() if entry != name},
        dropped=dropped,
    )


def _reader_of(text: str) -> str:
    """Whose file it is."""
    start = text.lstrip()[:1]
    return "trl" if start == "{" else "peft" if start == "[" else "axolotl" if KEY in text else "names"


def _parts(resolved: ResolvedSelection) -> set[str]:
    return {entry for entries in resolved.parts.values() for entry in entries}


def _home_of(parameters: tuple[str, ...]) -> str:
    """The module that holds them, or the bare parameter."""
    return module_name(parameters[0]).removesuffix(".bias")


def _numbers(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isdigit()]


def _adapted(wanted: Wanted) -> frozenset[str]:
    modules, parameters = adapter_targets(wanted)
    return frozenset([*(f"{module}.weight" for module in modules), *parameters])


def _ends(applied: AppliedSelection) -> frozenset[str]:
    """Parameters of embeddings and heads."""
    return frozenset(name for entry, found in applied.matched.items() if role(entry) != "other" for name in found)


def _write(reader: Reader, selection: Selection, skeleton: ModelSkeleton) -> tuple[str, Reading, AppliedSelection]:
    """The reader's file, proved; what it makes of it; and what our own way trains."""
    applied = apply_selection(selection, skeleton.module, partial="mask" if reader.holds else "refuse")
    parameters = tuple(name for name, value in skeleton.module.named_parameters() if value.requires_grad)
    kept = {name: mask.keep for name, mask in applied.masks.items()}
    wanted = Wanted(selection=selection, model=skeleton.module, parameters=parameters, kept=kept)
    text = reader.write(wanted)
    targets = _adapted(wanted) if reader.adapts else frozenset(parameters)
    return text, _read_as(targets, text, wanted, reader), applied


def _read_as(targets: frozenset[str], text: str, wanted: Wanted, reader: Reader) -> Reading:
    reading = reader.read(text, wanted.model)
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
    wrong = {name for name in wanted.kept.keys() | reading.kept.keys() if not _same_part(wanted, reading, name)}
    if wrong:
        raise SelectionError(f"{reader.name} would train other experts of {min(wrong)}, so nothing was written")
    return reading


def _same_part(wanted: Wanted, reading: Reading, name: str) -> bool:
    if name not in wanted.kept or name not in reading.kept:
        return False
    return torch.equal(*torch.broadcast_tensors(wanted.kept[name], reading.kept[name]))
