"""A budget finds what trying every percentage finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint
from spectrum_fast import Scan, scan, select_within
from spectrum_fast.choose.planner.budget import TOKENS, fit_budget
from spectrum_fast.choose.planner.memory import plan_memory
from spectrum_fast.choose.planner.setup import TrainingSetup
from spectrum_fast.choose.selection.model.skeleton import ModelSkeleton, module_of_tensors, skeleton_of_scan
from spectrum_fast.choose.selection.options import BudgetOptions, SelectOptions, read_budget
from spectrum_fast.choose.selection.ranking import cut_percents, largest_that_fits
from spectrum_fast.errors import SelectionError, UsageError


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    pytest.importorskip("transformers")
    folder: Path = write_checkpoint(tmp_path_factory.mktemp("budget"), like="tiny", layers=6).path
    return scan(folder, top_percent=None)


def parameters(made: Scan, options: SelectOptions) -> int:
    """What a selection trains, counted by hand on the scan's shapes; the tied head is no parameter of its own."""
    selection = made.select(options.top_percent, grouping=options.grouping, always=options.always)
    shapes = {module.name: module.shape for module in made.modules}
    return sum(shapes[name][0] * shapes[name][1] for name in selection.names if name in shapes)


@pytest.mark.parametrize("grouping", ["type", "global"])
@pytest.mark.parametrize("always", ["default", "none"])
def test_as_many_parameters_as_the_budget_allows(scanned: Scan, grouping: str, always: str) -> None:
    options = SelectOptions(grouping=grouping, always=always)
    costs = [parameters(scanned, replace(options, top_percent=percent)) for percent in range(1, 101)]
    for limit in (costs[40], costs[40] - 1, costs[99], costs[70] + 1):
        if limit < min(parameters(scanned, replace(options, top_percent=p)) for p in (17, 2)):
            continue
        found = fit_budget(scanned, skeleton_of_scan(scanned), options, BudgetOptions(budget=str(limit)))
        cost = parameters(scanned, found)
        assert cost <= limit
        assert cost == max(known for known in costs if known <= limit)


def test_as_much_memory_as_the_budget_allows(scanned: Scan) -> None:
    skeleton = skeleton_of_scan(scanned)
    setup = TrainingSetup(gpus=2, seq_len=TOKENS)
    peaks = {percent: plan_memory(skeleton, setup, selection=scanned.select(percent)).peak for percent in (17, 50, 84)}
    assert peaks[17] < peaks[50] < peaks[84]
    mebibytes = peaks[50] / 2**20 + 0.001
    found = fit_budget(scanned, skeleton, SelectOptions(), BudgetOptions(budget=f"{mebibytes:.4f}MiB", gpus=2))
    assert scanned.select(found.top_percent).modules == scanned.select(50).modules


def test_a_script_selects_within_a_budget_as_the_command_does(scanned: Scan) -> None:
    skeleton = skeleton_of_scan(scanned)
    for budget, gpus in (("100K", 1), ("80MiB", 2)):
        options = SelectOptions(always="none", only=["language-model"])
        percent = fit_budget(scanned, skeleton, options, BudgetOptions(budget=budget, gpus=gpus)).top_percent
        found = select_within(scanned, budget, gpus=gpus, always="none", only=["language-model"])
        assert found == scanned.select(percent, always="none", only=["language-model"])
        assert found.modules
    with pytest.raises(UsageError, match="budget: expected parameters"):
        select_within(scanned, "8G")
    with pytest.raises(UsageError, match="leave the percentage out"):
        select_within(scanned, "1M", top_percent=30)
    with pytest.raises(SelectionError, match="budget 7: the smallest share"):
        select_within(scanned, "7")


def test_what_cannot_be_budgeted_is_said(scanned: Scan) -> None:
    skeleton = skeleton_of_scan(scanned)
    with pytest.raises(SelectionError, match=r"budget 7: the smallest share .* trains .* count: --always none"):
        fit_budget(scanned, skeleton, SelectOptions(), BudgetOptions(budget="7"))
    with pytest.raises(UsageError, match="leave the percentage out"):
        fit_budget(scanned, skeleton, SelectOptions(30), BudgetOptions(budget="7B"))
    bare = ModelSkeleton("files", module_of_tensors([("a.weight", (2, 3), "F32")]), "there is no config")
    with pytest.raises(UsageError, match="memory is planned for models that transformers builds"):
        fit_budget(scanned, bare, SelectOptions(), BudgetOptions(budget="7GiB"))
    for wrong in ("8G", "-1B", "", "much"):
        with pytest.raises(UsageError, match="expected parameters"):
            BudgetOptions(budget=wrong)
    assert read_budget("1.5GB") == (1_500_000_000, True)


def test_the_largest_that_fits_is_what_trying_all_finds() -> None:
    percents = cut_percents([2, 7])
    for limit in range(101):
        expected = max((p for p in percents if p <= limit), default=percents[0])
        assert largest_that_fits([2, 7], lambda p: p, lambda made, limit=limit: made <= limit) == expected
