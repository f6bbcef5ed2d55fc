"""Order within a group and how many of it are taken.

Order: noise-free modules first (no finite score can be above "no noise at all"), then by falling ``snr``; equal scores
by natural name order (``layers.2`` before ``layers.10``), which in the reference's files is the scan order, so that the
order is the reference's stable sort. NaN cannot be here: :class:`~spectrum_fast.measure.scoring.records.ModuleScore`
has none.
"""

from __future__ import annotations

import functools
import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args

from spectrum_fast.checks import PERCENT
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.read.checkpoint.naming import LANGUAGE_MODEL, merged_experts_type, module_name, natural_key
from spectrum_fast.read.checkpoint.towers import find_towers

if TYPE_CHECKING:
    from spectrum_fast.choose.selection.scan_result import Scan

_Made = TypeVar("_Made")

Grouping: TypeAlias = Literal["type", "experts-merged", "global", "reference"]
GROUPINGS: tuple[str, ...] = get_args(Grouping)
"""``type``: one group a module type of a tower. ``experts-merged``: the same, with all experts of a projection in one
(``mlp.experts.*.down_proj``). ``global``: one group. ``reference``: one a module type, whatever the tower."""

Rounding: TypeAlias = Literal["reference", "floor", "ceil"]
"""``reference``: ``int(size * percent / 100)`` in floating point. ``floor``, ``ceil``: the exact product, rounded."""

Order: TypeAlias = Literal["top", "bottom", "random"]
"""Which members of a group are taken: the best, the worst, or drawn by chance. The last two are controls."""


def rank_modules(modules: Iterable[ModuleScore]) -> list[ModuleScore]:
    """Best first; see the module's docstring for the order."""
    return sorted(modules, key=lambda module: (-module.rank_value, natural_key(module.name)))


def take(ranked: Sequence[ModuleScore], count: int, order: Order, seed: int, group: str) -> list[int]:
    """Places in ``ranked`` (0 is best) of the modules that a group of this name gives, in the order they are taken.

    ``bottom`` starts with the worst; ``random`` draws the same of a seed and a group whatever other groups hold.

    >>> take([], 0, "top", 0, "mlp.down_proj")
    []
    """
    if order == "top":
        return list(range(count))
    if order == "bottom":
        return list(range(len(ranked) - 1, len(ranked) - 1 - count, -1))
    return random.Random(f"{seed}:{group}").sample(range(len(ranked)), count)  # noqa: S311 - a draw, no secret


def group_name(module_type: str, grouping: Grouping, tower: str = LANGUAGE_MODEL, name: str = "") -> str:
    """The group that a module competes in: its type, after the tower if that is not the language model.

    Args:
        module_type: of the module.
        grouping: one of :data:`GROUPINGS`.
        tower: which it belongs to (:func:`spectrum_fast.read.checkpoint.towers.find_towers`).
        name: of the module; a type that is the whole name says its tower itself.

    >>> group_name("mlp.up_proj", "type", "vision", "visual.blocks.0.mlp.up_proj")
    'vision:mlp.up_proj'
    """
    if grouping == "global":
        return grouping
    group = merged_experts_type(module_type) if grouping == "experts-merged" else module_type
    return group if grouping == "reference" or tower == LANGUAGE_MODEL or name == module_type else f"{tower}:{group}"


def names_in(scan: Scan) -> list[str]:
    """Every module that a scan names: with a score or without one, tied to another or left out."""
    return [*(entry.name for entry in (*scan.modules, *scan.failures, *scan.skipped)), *scan.ties]


def towers_of(scan: Scan) -> dict[str, str]:
    """The tower of every module that a scan names, of fused parameters too."""
    homes = [module_name(entry.parameter) for entry in (*scan.modules, *scan.failures) if entry.parameter]
    return find_towers([*names_in(scan), *homes], scan.provenance.get("config"))


def group_modules(
    modules: Iterable[ModuleScore], grouping: Grouping, towers: Mapping[str, str]
) -> dict[str, list[ModuleScore]]:
    """Modules by the group that they compete in; groups and modules in order of appearance."""
    groups: dict[str, list[ModuleScore]] = {}
    for module in modules:
        group = group_name(module.type, grouping, towers[module.name], module.name)
        groups.setdefault(group, []).append(module)
    return groups


def check_percent(top_percent: float) -> None:
    """Refuse a share that is no number in (0, 100].

    Raises:
        UsageError: it is none.
    """
    if not PERCENT.test(top_percent):
        raise UsageError(f"top percent: expected {PERCENT.expected}, found {top_percent!r}")


def count_taken(size: int, top_percent: float, rounding: Rounding = "reference") -> int:
    """How many modules of a group of ``size`` are taken; never falls when ``top_percent`` grows.

    Args:
        size: modules that compete in the group.
        top_percent: in (0, 100].
        rounding: see :data:`Rounding`. With ``reference`` and ``floor`` a group of one is taken at 100 % only.

    Raises:
        UsageError: ``top_percent`` is out of range.
    """
    check_percent(top_percent)
    return _ROUND[rounding](size, top_percent)


def cut_percents(sizes: Iterable[int]) -> list[float]:
    """Percentages in rising order at which one more module of a group is taken.

    >>> cut_percents([2, 3])
    [33.3334, 50.0, 66.6667, 100.0]
    """
    exact = {Fraction(100 * taken, size) for size in sizes for taken in range(1, size + 1)}
    # Rounded up in the fourth decimal place, so that the number taken is reached whatever the rounding rule.
    return sorted({min(100.0, float(-(-value * 10_000 // 1)) / 10_000) for value in exact})


def largest_that_fits(sizes: Iterable[int], make: Callable[[float], _Made], fits: Callable[[_Made], bool]) -> _Made:
    """What is made of the largest percentage that fits, and of the smallest one where none does.

    Those are tried at which one more module is taken of a group of one of these ``sizes``; what ``fits`` is no longer
    true once it was false for a smaller percentage.
    """
    percents = cut_percents(sizes)
    made = functools.cache(make)
    fitting = bisect_left(percents, True, key=lambda percent: not fits(made(percent)))
    return made(percents[max(fitting - 1, 0)])


def _exact(size: int, top_percent: float) -> Fraction:
    """``size * top_percent / 100`` with the percentage read as the decimal number that it is written as."""
    return size * Fraction(repr(top_percent)) / 100


_ROUND: dict[str, Callable[[int, float], int]] = {
    "reference": lambda size, top_percent: int(size * top_percent / 100),
    "floor": lambda size, top_percent: math.floor(_exact(size, top_percent)),
    "ceil": lambda size, top_percent: math.ceil(_exact(size, top_percent)),
}
