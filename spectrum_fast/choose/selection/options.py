"""What a selection is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from spectrum_fast.checks import COUNT, FLAG, PERCENT, POSITIVE, Check
from spectrum_fast.choose.selection.fused import Fused
from spectrum_fast.choose.selection.patterns import compile_pattern
from spectrum_fast.choose.selection.ranking import Grouping, Order, Rounding
from spectrum_fast.measure.scoring.criteria import CriterionName, find_criterion
from spectrum_fast.options import Option, Options

_NUMBERS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_WORDS = (("default",), ("none",))


@dataclass(frozen=True)
class SelectOptions(Options):
    """The options of :meth:`spectrum_fast.Scan.select` and of the command ``select``.

    Raises:
        UsageError: one is out of range.
    """

    top_percent: Annotated[
        float,
        Option("Share of each group, in (0, 100].", "A larger one takes a superset.", metavar="P", check=PERCENT),
    ] = 25.0
    _: KW_ONLY
    criterion: Annotated[
        CriterionName | None,
        Option(
            "Rank by this and not by the scan's criterion: mp-rank, kappa, alpha...",
            "``kappa``, ``stable-rank``, ``spectral-norm`` and ``mp-rank`` follow from every scan, ``effective-rank``, "
            "``energy`` and ``alpha`` from one that stores spectra (``--spectra``), ``spectrum`` and ``mp`` from one "
            "by it; or one that :func:`spectrum_fast.criterion` has registered. No weight is read.",
            metavar="NAME",
        ),
    ] = None
    grouping: Annotated[
        Grouping,
        Option(
            "type, experts-merged, global or reference.",
            "What competes with what: modules of one type and tower (language model, vision, audio...); the same with "
            "all experts of a projection in one; all modules; modules of one type whatever the tower, as the reference "
            "has it.",
        ),
    ] = "type"
    fused: Annotated[
        Fused,
        Option(
            "Fused experts compete as one parameter (parameter) or each by itself (parts).",
            "With ``parameter``, a pattern that includes the parameter or all its parts includes it; one that excludes "
            "it or any of its parts excludes it.",
        ),
    ] = "parameter"
    rounding: Annotated[
        Rounding,
        Option(
            "reference, floor or ceil.",
            "The reference's ``int(size * percent / 100)`` never takes a group of one below 100 %.",
        ),
    ] = "reference"
    include: Annotated[
        Sequence[str],
        Option(
            "Only modules like this; repeatable.",
            "Patterns as ``'*.mlp.*'`` or ``'re:...'``; only matching modules compete.",
            metavar="PATTERN",
        ),
    ] = ()
    exclude: Annotated[
        Sequence[str],
        Option(
            "Not these modules; repeatable.",
            "They neither compete nor are trained always; exclusion wins over everything.",
            metavar="PATTERN",
        ),
    ] = ()
    only: Annotated[
        Sequence[str],
        Option(
            "Only this tower: language-model, vision, audio...; repeatable.",
            "Modules of others neither compete nor are trained always. The scan's table names the towers that there "
            "are.",
            metavar="TOWER",
        ),
    ] = ()
    always: Annotated[
        str | Sequence[str],
        Option(
            "default (embeddings, lm_head), none, or modules to train anyway; repeatable.",
            "Of towers the default takes the language model's tables alone. What is trained whatever its score is "
            "listed apart and does not compete.",
            metavar="PATTERN",
        ),
    ] = "default"
    allow_incomplete: Annotated[
        bool, Option("Select although some tensors failed.", "They are left out and named in the result.", check=FLAG)
    ] = False
    order: Annotated[
        Order,
        Option(
            "top, or bottom or random as a control.",
            "These take exactly as many modules of every group, the worst or drawn by chance; what is trained always "
            "stays.",
            python_only=True,
        ),
    ] = "top"
    seed: Annotated[int, Option("Of the order ``random``.", python_only=True, check=COUNT)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.criterion is not None:
            find_criterion(self.criterion)
        if not isinstance(self.always, str) and tuple(self.always) in _WORDS:
            object.__setattr__(self, "always", self.always[0])
        for patterns in (self.include, self.exclude, self.always):
            for pattern in () if isinstance(patterns, str) else patterns:
                compile_pattern(pattern)


def read_budget(text: str) -> tuple[int, bool] | None:
    """How much, and whether that is bytes; None if it is neither parameters nor memory.

    >>> read_budget("2.5B"), read_budget("8GiB"), read_budget("8G")
    ((2500000000, False), (8589934592, True), None)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text)
    if found is None or found[2] not in {**_NUMBERS, **_BYTES}:
        return None
    return int(float(found[1]) * {**_NUMBERS, **_BYTES}[found[2]]), found[2] in _BYTES


_BUDGET = Check(lambda value: read_budget(value) is not None, "parameters (900M, 2.5B) or memory (8GiB)")


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Options):
    """What a selection may cost, in place of a percentage.

    Raises:
        UsageError: one is out of range.
    """

    budget: Annotated[
        str | None,
        Option(
            "Instead of a percent: what is trained at most (900M, 2.5B), or memory of one GPU (8GiB).",
            "The largest share of each group within it, embeddings and head counted. Memory is planned for bfloat16, "
            "AdamW, ZeRO-3 and a sequence of 4096 tokens.",
            metavar="SIZE",
            check=_BUDGET,
        ),
    ] = None
    gpus: Annotated[int, Option("With a budget of memory: GPUs that share the model.", metavar="N", check=POSITIVE)] = 1


def _is_rule(text: str) -> bool:
    try:
        return text == "edge" or 0 < float(text) < 1
    except ValueError:
        return False


_RULE = Check(_is_rule, "edge, or a share of the energy in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class RankOptions(Options):
    """The rank of a module's low-rank update (:func:`~spectrum_fast.choose.selection.export.low_ranks.module_ranks`).

    Raises:
        UsageError: one is out of range.
    """

    ranks: Annotated[
        str | None,
        Option(
            "Ranks of adapters: edge, or a share of energy (0.9).",
            "``edge`` counts the singular values above the Marchenko-Pastur edge; a share takes as many as hold it of "
            "the sum of squares, which needs all of them (``--spectra``; a difference has them). At least 1.",
            metavar="RULE",
            check=_RULE,
        ),
    ] = None
    max_rank: Annotated[int | None, Option("No larger rank than this.", metavar="N", check=POSITIVE)] = None

    @property
    def energy(self) -> float | None:
        """The share of the energy; None for the edge."""
        return None if self.ranks in (None, "edge") else float(self.ranks)
