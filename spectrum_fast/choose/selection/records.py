"""What a selection is: the modules to train, and how they were chosen.

Everything else here builds on these records; what a selection can do is imported where it is called, so that nothing
imports in a circle and reading a selection loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_fast.measure.scoring.json_fields import Name
from spectrum_fast.read.checkpoint.naming import module_name
from spectrum_fast.words import count_of

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn

    from spectrum_fast.choose.selection.apply import AppliedSelection


@dataclass(frozen=True, kw_only=True)
class SelectedModule:
    """One module to train.

    Attributes:
        name: module name, without ``.weight``.
        type: what follows the first numeric path component.
        group: the group it competed in: ``type``, or ``tower:type`` in another tower than the language model.
        parameter: full parameter name in the checkpoint; None where only names are known.
        shape: of the stored tensor; None where not known.
        snr: its score; None if ``noise_free``, or where only names are known.
        noise_free: it has no noise at all and ranks above every finite score.
        rank: place in its group, 1 is best; None where only names are known.
        group_size: modules that competed in its group; None where only names are known.
        parameter_shape: shape of the whole parameter, if this is a part of it (an expert, a fused projection).
    """

    name: Name
    type: Name
    group: Name
    parameter: Name | None = None
    shape: tuple[int, ...] | None = None
    snr: float | None = None
    noise_free: bool = False
    rank: int | None = None
    group_size: int | None = None
    parameter_shape: tuple[int, ...] | None = None

    @property
    def home(self) -> str:
        """Name of the module that a trainer frees for it: of the whole parameter where it is a part of one."""
        return self.name if self.parameter is None else module_name(self.parameter)


@dataclass(frozen=True, kw_only=True)
class SelectionGroup:
    """One group and its cut.

    Attributes:
        name: group name.
        taken: how many modules were taken.
        size: how many competed; None where only names are known. Modules trained always do not compete.
        always: modules of this group that are trained whatever their score.
        last_taken: the module just above the cut, None if none was taken.
        first_left_out: the module just below, None if all were taken.
        gap: ``(snr above - snr below) / snr above`` at the cut, in [0, 1]; None without a cut, or where the module
            above is noise-free and the one below is not.
        undecided: by their error bounds, a module left out may score as high as one that is taken (or equal scores, or
            noise-free modules, lie on both sides), so that which of them is taken is not decided by signal.
    """

    name: Name
    taken: int
    size: int | None = None
    always: tuple[str, ...] = ()
    last_taken: Name | None = None
    first_left_out: Name | None = None
    gap: float | None = None
    undecided: bool = False


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Modules to train: ``modules`` by rank, and ``always`` whatever their score.

    Attributes:
        model: what was scanned; None where only names are known.
        criterion: the rule behind the scores; None where not known.
        top_percent: share of each group, in (0, 100]; None where not known.
        grouping: one of :data:`spectrum_fast.choose.selection.ranking.GROUPINGS`; None where not known.
        rounding: one of :data:`spectrum_fast.choose.selection.ranking.ROUNDINGS`; None where not known.
        fused: how fused parameters competed, one of :data:`spectrum_fast.measure.scoring.fused.FUSED`; None where not
        known. order: ``top``, or ``bottom`` or ``random`` for a control of the same size.
        seed: of a ``random`` order; None otherwise.
        always_rule: ``default`` (embeddings and lm_head), ``none`` or ``custom``.
        always: modules trained whatever their score; they do not compete.
        modules: the chosen modules, groups in scan order, best first within a group.
        groups: every group in scan order, those with nothing taken too.
        failed: tensors without a score that the selection leaves out (``allow_incomplete``).
    """

    modules: tuple[SelectedModule, ...]
    always: tuple[str, ...] = ()
    groups: tuple[SelectionGroup, ...] = ()
    model: str | None = None
    criterion: str | None = None
    top_percent: float | None = None
    grouping: str | None = None
    rounding: str | None = None
    order: str = "top"
    seed: int | None = None
    always_rule: str = "default"
    failed: tuple[str, ...] = ()
    fused: str | None = None

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

    def apply(self, model: nn.Module, *, strict: bool = True, partial: str = "refuse") -> AppliedSelection:
        """Freeze ``model`` except for this selection; see :func:`spectrum_fast.choose.selection.apply.apply_selection`.

        Raises:
            SelectionError: an entry matches no parameter, or only a part of one; nothing was changed.
        """
        from spectrum_fast.choose.selection.apply import apply_selection

        return apply_selection(self, model, strict=strict, partial=partial)

    def lora_config(self, model: nn.Module | None = None, **options: Any) -> LoraConfig:
        """LoRA on the selected modules; see :func:`spectrum_fast.choose.selection.adapters.lora_config`.

        Raises:
            SelectionError: an entry matches nothing in ``model``, or cannot carry an adapter.
        """
        from spectrum_fast.choose.selection.adapters import lora_config

        return lora_config(self, model, **options)

    def save(self, path: str | Path, output_format: str = "json") -> None:
        """Write it in one of :data:`spectrum_fast.choose.selection.formats.SELECTION_FORMATS`, whole or not at all.

        Raises:
            SelectionError: the target cannot be written.
        """
        from spectrum_fast.choose.selection.formats import save_selection

        save_selection(self, path, output_format)

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
