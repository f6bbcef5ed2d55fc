"""From scores to a selection: the best modules of each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from spectrum_fast.choose.selection.fused import competing_modules, parts_by_parameter
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.patterns import match_patterns
from spectrum_fast.choose.selection.ranking import count_taken, group_modules, rank_modules, take, towers_of
from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.measure.scoring.criteria import QuantityCriterion, find_criterion
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.scoring.split import split_again
from spectrum_fast.read.checkpoint.naming import LANGUAGE_MODEL, natural_key, role
from spectrum_fast.read.checkpoint.towers import TEXT_TOWERS
from spectrum_fast.words import count_of, list_some

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan


def select_with(scan: Scan, options: SelectOptions) -> Selection:
    """See :meth:`spectrum_fast.Scan.select`; with options that are made and checked."""
    scan = scan if options.criterion is None else rescore(scan, options.criterion)
    competing = competing_modules(scan, options.fused)
    towers = towers_of(scan)
    names = _Names(scan, competing, _inside(towers, options.only, scan.model), options)
    failed = tuple(failure.name for failure in scan.failures if names.competes(failure.name))
    if failed and not options.allow_incomplete:
        raise SelectionError(_incomplete_message(scan, failed))
    always_names, always_rule = _always(names, options.always, tables_of(towers))
    if options.only and LANGUAGE_MODEL not in options.only and always_rule == "default":
        always_rule = "custom" if always_names else "none"  # the default stands for the language model's tables
    trained_always = set(always_names)

    groups = group_modules((one for one in competing if names.is_inside(one.name)), options.grouping, towers)
    rivals = {
        name: rank_modules(one for one in members if names.competes(one.name) and one.name not in trained_always)
        for name, members in groups.items()
    }
    if not trained_always and not any(rivals.values()):
        raise SelectionError(f"scan of {scan.model}: there is nothing to select from: no module is left to compete")

    chosen: list[SelectedModule] = []
    cuts: list[SelectionGroup] = []
    for name, ranked in rivals.items():
        always = tuple(module.name for module in groups[name] if module.name in trained_always)
        taken = count_taken(len(ranked), options.top_percent, options.rounding)
        places = take(ranked, taken, options.order, options.seed, name)
        chosen += [_selected(ranked[place], name, place + 1, len(ranked)) for place in places]
        cuts.append(_cut(name, ranked, taken, always, options.order))
    return Selection(
        model=scan.model,
        criterion=scan.criterion,
        top_percent=options.top_percent,
        grouping=options.grouping,
        rounding=options.rounding,
        order=options.order,
        seed=options.seed if options.order == "random" else None,
        always_rule=always_rule,
        always=always_names,
        modules=tuple(chosen),
        groups=tuple(cuts),
        failed=failed,
        fused=options.fused,
    )


def rescore(scan: Scan, name: str) -> Scan:
    """The scan with the scores of another criterion, from what it holds; no weight is read.

    Raises:
        UsageError: there is no such criterion, or the scan lacks what it is made of; the message says what stores it.
    """
    rule = find_criterion(name)
    if name == scan.criterion:
        return scan
    if isinstance(rule, QuantityCriterion):
        modules = tuple(replace(module, **rule.score_of([module])) for module in scan.modules)
    else:
        modules = tuple(split_again(module, rule) for module in scan.modules)
    return replace(scan, criterion=name, modules=modules)


def tables_of(towers: Mapping[str, str]) -> set[str]:
    """What ``always="default"`` trains, as the reference does: embeddings and heads of the language model."""
    return {name for name, tower in towers.items() if tower in TEXT_TOWERS and role(name) != "other"}


class _Names:
    """What patterns may name: modules that compete, parts of those that are fused, failures and ties.

    Patterns must match something known.
    """

    def __init__(
        self, scan: Scan, competing: Sequence[ModuleScore], is_inside: Callable[[str], bool], options: SelectOptions
    ) -> None:
        self.is_inside = is_inside
        self.trainable = [module.name for module in competing] + list(scan.ties)
        parts, whole = parts_by_parameter(scan.modules), [module for module in competing if not module.is_part]
        self.parts = {module.name: [part.name for part in parts.get(module.parameter or "", ())] for module in whole}
        names = {entry.name for entry in (*competing, *scan.modules, *scan.failures)} | set(scan.ties)
        known = sorted(names, key=natural_key) if options.include or options.exclude else []
        self.included = match_patterns(options.include, known, "include") if options.include else names
        self.excluded = match_patterns(options.exclude, known, "exclude")

    def may_train(self, name: str) -> bool:
        """Whether neither a tower nor a pattern leaves it out."""
        return self.is_inside(name) and not self.any_in(name, self.excluded)

    def competes(self, name: str) -> bool:
        """Whether it, or all of its parts, are included as well."""
        parts = self.parts.get(name)
        return self.may_train(name) and (name in self.included or bool(parts and self.included.issuperset(parts)))

    def any_in(self, name: str, matched: set[str]) -> bool:
        """Whether the name or that of one of its parts was matched."""
        return name in matched or not matched.isdisjoint(self.parts.get(name, ()))


def _inside(towers: Mapping[str, str], only: Sequence[str], model: str) -> Callable[[str], bool]:
    """A test whether a module is in one of these towers; without any named, all are."""
    there = list(dict.fromkeys(towers.values()))
    if unknown := [tower for tower in only if tower not in there]:
        raise UsageError(f"only: expected towers of {model} ({', '.join(there)}), found {unknown[0]!r}")
    return lambda name: not only or towers[name] in only


def _always(known: _Names, always: str | Sequence[str], tables: set[str]) -> tuple[tuple[str, ...], str]:
    """Names trained always in scan order (duplicates of a tie last), and the rule that named them."""
    names = known.trainable
    if always == "none":
        return (), "none"
    if always == "default":
        wanted, rule = tables, "default"
    elif isinstance(always, str):
        raise UsageError(f"always: expected 'default', 'none' or a list of patterns, found {always!r}")
    else:
        parts = [part for members in known.parts.values() for part in members]
        matched = match_patterns(always, [*names, *parts], "always")
        wanted = {name for name in names if known.any_in(name, matched)}
        rule = "custom" if always else "none"
    return tuple(name for name in names if name in wanted and known.may_train(name)), rule


def _selected(module: ModuleScore, group: str, rank: int, group_size: int) -> SelectedModule:
    shared = ("name", "type", "parameter", "shape", "snr", "noise_free", "parameter_shape")
    known = {key: getattr(module, key) for key in shared}
    return SelectedModule(group=group, rank=rank, group_size=group_size, **known)


def _cut(name: str, ranked: list[ModuleScore], taken: int, always: tuple[str, ...], order: str) -> SelectionGroup:
    """Describe the cut between ``ranked[taken - 1]`` and ``ranked[taken]``; a control has none."""
    group = SelectionGroup(name=name, taken=taken, size=len(ranked), always=always)
    if order != "top":
        return group
    above, below = ranked[:taken], ranked[taken:]
    if above:
        group = replace(group, last_taken=above[-1].name)
    if below:
        group = replace(group, first_left_out=below[0].name)
    if above and below:
        group = replace(group, gap=_relative_gap(above[-1], below[0]), undecided=_is_undecided(above, below))
    return group


def _relative_gap(above: ModuleScore, below: ModuleScore) -> float | None:
    """``(above - below) / above`` in [0, 1]; 0 for two noise-free ones, None for one above a finite one."""
    if above.snr is None:
        return 0.0 if below.snr is None else None
    if below.snr is None or above.snr == 0:  # the order makes the first impossible; both are zero in the second
        return 0.0
    return (above.snr - below.snr) / above.snr


def _is_undecided(taken: list[ModuleScore], left: list[ModuleScore]) -> bool:
    """Whether the true score of any module left out may reach that of any one taken; noise-free ones are certain."""
    if left[0].noise_free:
        return True
    scored = [module for module in taken if not module.noise_free]
    if not scored:
        return False
    return min(module.score_range[0] for module in scored) <= max(module.score_range[1] for module in left)


def _incomplete_message(scan: Scan, failed: tuple[str, ...]) -> str:
    by_name = {failure.name: failure for failure in scan.failures}
    shown = list_some([f"{name} ({by_name[name].kind}: {by_name[name].message})" for name in failed], between="; ")
    lost = count_of(len(failed), "tensor has", "tensors have")
    return (
        f"scan of {scan.model} is incomplete: {lost} no score: {shown}. "
        "Repair the checkpoint, exclude them, or allow an incomplete selection (allow_incomplete)"
    )
