"""The selection: what is trained, and what can be done with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spectrum_fast.choose.selection.formats import read_selection_text, write_selection
from spectrum_fast.choose.selection.model.adapters import lora_config
from spectrum_fast.choose.selection.model.apply import apply_selection
from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup, SelectionHead
from spectrum_fast.errors import SelectionError
from spectrum_fast.files import read_text, write_text_atomic
from spectrum_fast.words import count_of


@dataclass(frozen=True, kw_only=True, repr=False)
class Selection(SelectionHead):
    """Modules to train: ``modules`` by rank, and ``always`` whatever their score.

    Attributes:
        modules: the chosen modules, groups in scan order, best first within a group.
        groups: every group in scan order, those with nothing taken too.
    """

    modules: tuple[SelectedModule, ...]
    groups: tuple[SelectionGroup, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every module to train: those trained always first, then the chosen ones."""
        return (*self.always, *(module.name for module in self.modules))

    def whole_parameters(self) -> Selection:
        """The same with parameters in place of their parts, as readers need that free modules by name.

        Each parameter stands once, where the best of its parts stood.
        """
        merged: dict[str, SelectedModule] = {}
        for module in self.modules:
            if module.home == module.name:
                merged.setdefault(module.name, module)
            else:
                whole = replace(module, name=module.home, shape=module.parameter_shape, parameter_shape=None)
                merged.setdefault(module.home, whole)
        return replace(self, modules=tuple(merged.values()))

    apply = apply_selection
    """Freeze a model except for it: :func:`spectrum_fast.choose.selection.model.apply.apply_selection`."""

    lora_config = lora_config
    """LoRA on the selected modules: :func:`spectrum_fast.choose.selection.model.adapters.lora_config`."""

    def save(self, path: str | Path, output_format: str = "json") -> None:
        """Write it in one of :data:`spectrum_fast.choose.selection.formats.SELECTION_FORMATS`, whole or not at all.

        Raises:
            SelectionError: the target cannot be written, which leaves an old file unchanged, or the format cannot hold
                a name.
            UsageError: it is no format of a selection.
        """
        write_text_atomic(path, write_selection(self, output_format), error=SelectionError)

    def __repr__(self) -> str:
        return f"<Selection of {self.summary().splitlines()[0]}>"

    def summary(self) -> str:
        """A few lines for people: how many modules of how many, the groups, and cuts that the scores do not decide."""
        share = "a list of names" if self.top_percent is None else f"{self.order} {self.top_percent:g} %"
        head = f"{self.model or 'unknown model'}: {share}, {count_of(len(self.modules), 'module')}"
        sizes = [group.size for group in self.groups]
        known = [size for size in sizes if size is not None]
        if known and len(known) == len(sizes):
            head += f" of {sum(known):,} in {count_of(len(sizes), 'group')}"
        lines = [head + f", and {len(self.always)} always: {', '.join(self.always)}" if self.always else head]
        for group in self.groups:
            if group.size == 0:
                lines.append(f"  {group.name}: {'trained always' if group.always else 'none competes'}")
                continue
            of = "" if group.size is None else f" of {group.size}"
            gap = "" if group.gap is None else f", gap at the cut {100 * group.gap:.2g} %"
            tie = ", undecided (the scores at the cut tie within their error)" if group.undecided else ""
            lines.append(f"  {group.name}: {group.taken}{of}{gap}{tie}")
        if self.failed:
            lines.append(f"  left out, because they have no score: {', '.join(self.failed)}")
        return "\n".join(lines)


def load_selection(path: str | Path) -> Selection:
    """Read a selection: our own JSON, the reference's YAML, a PEFT list or plain names; recognised by content.

    Raises:
        SelectionError: the file cannot be read or is none of these.
    """
    return parse_selection(read_text(path, error=SelectionError), str(path))


def parse_selection(text: str, source: str = "selection") -> Selection:
    """Read a selection from text; ``source`` is what to call it in messages."""
    return Selection(**read_selection_text(text, source))
