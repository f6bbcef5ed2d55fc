"""The share of a selection that a budget allows: so many parameters, or so many bytes on each GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spectrum_fast.choose.planner.memory import plan_memory
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.model.apply import apply_selection
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton, read_skeleton, skeleton_of_scan
from spectrum_fast.choose.selection.options import BudgetOptions, SelectOptions, read_budget
from spectrum_fast.choose.selection.ranking import largest_that_fits
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.select import select_with
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.words import size_of

TOKENS = 4096
"""Of a sequence of the run whose memory is told and budgeted."""


def select_within(scan: Scan, budget: str, *, gpus: int = 1, model: str | None = None, **options: Any) -> Selection:
    """Select as much as a budget allows: :meth:`spectrum_fast.Scan.select` with the largest percentage within it.

    Args:
        scan: the scores.
        budget: what is trained at most (``900M``, ``2.5B``), or memory of one GPU (``8GiB``), which is planned for
            bfloat16, AdamW, ZeRO-3 and a sequence of 4096 tokens.
        gpus: with memory: GPUs that share the model.
        model: the checkpoint, where the scan does not say enough of it (a published file).
        options: as of ``Scan.select``, but for ``top_percent``.

    Raises:
        UsageError: the budget is none, an option is out of range, or memory cannot be planned for the model.
        SelectionError: the smallest share costs more, or nothing can be selected.
    """
    skeleton = skeleton_of_scan(scan) if model is None else read_skeleton(model)
    asked = BudgetOptions(budget=budget, gpus=gpus)
    return select_with(scan, fit_budget(scan, skeleton, SelectOptions(**options), asked))


def fit_budget(scan: Scan, skeleton: ModelSkeleton, options: SelectOptions, budget: BudgetOptions) -> SelectOptions:
    """The options with the largest ``top_percent`` whose selection costs no more than a budget.

    Memory is planned for a model that transformers builds; embeddings and head count where they are trained.

    Raises:
        UsageError: there is no budget, or a percentage beside it, or memory cannot be planned for the model.
        SelectionError: the smallest share costs more.
    """
    found = read_budget(budget.budget or "")
    if found is None or options.top_percent != SelectOptions.top_percent:
        raise UsageError("budget: it finds the share itself; leave the percentage out")
    limit, is_memory = found
    if is_memory and not hasattr(skeleton.module, "get_input_embeddings"):
        raise UsageError(
            f"budget: memory is planned for models that transformers builds ({skeleton.note}); give parameters"
        )
    setup = TrainingSetup(gpus=budget.gpus, seq_len=TOKENS)

    def select(percent: float) -> tuple[Selection, int]:
        selection = select_with(scan, replace(options, top_percent=percent))
        if is_memory:
            return selection, plan_memory(skeleton, setup, selection=selection).peak
        return selection, apply_selection(selection, skeleton.module, partial="whole").trainable_parameters

    sizes = {group.size for group in select_with(scan, options).groups if group.size}
    best, cost = largest_that_fits(sizes, select, lambda made: made[1] <= limit)
    assert best.top_percent is not None  # noqa: S101 - it was made from one
    if cost > limit:
        words = f"needs {size_of(cost)} a GPU" if is_memory else f"trains {cost:,} parameters"
        ways = f"; {', '.join(best.always)} count: --always none leaves them" if best.always else ""
        raise SelectionError(
            f"budget {budget.budget}: the smallest share ({best.top_percent:g} % of each group) {words}{ways}"
        )
    return replace(options, top_percent=best.top_percent)
