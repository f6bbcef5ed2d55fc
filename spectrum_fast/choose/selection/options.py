"""What a selection is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from spectrum_fast.checks import COUNT, FLAG, PERCENT
from spectrum_fast.choose.selection.ranking import Grouping, Order, Rounding
from spectrum_fast.measure.scoring.criteria import CriterionName, find_criterion
from spectrum_fast.measure.scoring.fused import Fused
from spectrum_fast.options import Option, Options

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
            "``kappa``, ``stable-rank``, ``spectral-norm`` and ``mp-rank`` follow from every scan, ``effective-rank`` "
            "and ``alpha`` from one that stores spectra (``--spectra``), ``spectrum`` and ``mp`` from a scan by it; or "
            "one that :func:`spectrum_fast.criterion` has registered. No weight is read.",
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
            metavar="NAME",
        ),
    ] = "type"
    fused: Annotated[
        Fused,
        Option(
            "Fused experts compete as one parameter (parameter) or each by itself (parts).",
            "With ``parameter``, a pattern that includes the parameter or all its parts includes it; one that excludes "
            "it or any of its parts excludes it.",
            metavar="NAME",
        ),
    ] = "parameter"
    rounding: Annotated[
        Rounding,
        Option(
            "reference, floor or ceil.",
            "The reference's ``int(size * percent / 100)`` never takes a group of one below 100 %.",
            metavar="NAME",
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
