"""A selection as people read it, and its parts put together to parameters."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup
from spectrum_fast.choose.selection.selection import Selection
from spectrum_fast.errors import SelectionError


def part(layer: int, index: int, rank: int = 1) -> SelectedModule:
    return SelectedModule(
        name=f"l.{layer}.experts.{index}.up",
        type=f"experts.{index}.up",
        group="experts.*.up",
        parameter=f"l.{layer}.experts.up",
        shape=(8, 6),
        rank=rank,
        parameter_shape=(4, 8, 6),
    )


def test_the_summary_of_a_scan_of_ones_own():
    groups = (
        SelectionGroup(name="q", taken=1, size=4, gap=0.99),
        SelectionGroup(name="k", taken=1, size=2, gap=1e-5, undecided=True),
        SelectionGroup(name="lm_head", taken=0, size=0, always=("lm_head",)),
        SelectionGroup(name="rest", taken=0, size=0),
        SelectionGroup(name="v", taken=0, size=1),
    )
    modules = tuple(SelectedModule(name=f"l.0.{key}", type=key, group=key) for key in "qk")
    selection = Selection(
        model="m", top_percent=25, modules=modules, groups=groups, always=("lm_head", "wte"), failed=("x", "y")
    )
    assert selection.summary().splitlines() == [
        "m: top 25 %, 2 modules of 7 in 5 groups, and 2 always: lm_head, wte",
        "  q: 1 of 4, gap at the cut 99 %",
        "  k: 1 of 2, gap at the cut 0.001 %, undecided (the scores at the cut tie within their error)",
        "  lm_head: trained always",
        "  rest: none competes",
        "  v: 0 of 1",
        "  left out, because they have no score: x, y",
    ]


def test_the_summary_of_a_list_of_names():
    modules = (SelectedModule(name="l.0.q", type="q", group="q"),)
    selection = Selection(modules=modules, groups=(SelectionGroup(name="q", taken=1),))
    assert selection.summary() == "unknown model: a list of names, 1 module\n  q: 1"
    mixed = Selection(
        modules=modules, groups=(SelectionGroup(name="q", taken=1), SelectionGroup(name="k", taken=0, size=3))
    )
    assert mixed.summary().splitlines()[0] == "unknown model: a list of names, 1 module"
    control = Selection(model="m", order="bottom", top_percent=12.5, modules=())
    assert control.summary() == "m: bottom 12.5 %, 0 modules"


def test_parts_become_their_parameter_once_where_the_best_stood():
    plain = SelectedModule(name="l.0.q", type="q", group="q", parameter="l.0.q.weight", shape=(4, 4))
    bare = SelectedModule(name="l.0.k", type="k", group="k")
    selection = Selection(
        modules=(part(1, 3), plain, part(0, 2, rank=2), part(1, 0, rank=3), bare), always=("lm_head",)
    )
    whole = selection.whole_parameters()
    assert [module.name for module in whole.modules] == ["l.1.experts.up", "l.0.q", "l.0.experts.up", "l.0.k"]
    first = whole.modules[0]
    assert (first.shape, first.parameter_shape, first.parameter, first.rank) == ((4, 8, 6), None, "l.1.experts.up", 1)
    assert whole.modules[1] == plain
    assert whole.names == ("lm_head", "l.1.experts.up", "l.0.q", "l.0.experts.up", "l.0.k")
    assert whole.whole_parameters() == whole


def test_a_selection_that_matches_nothing_is_applied_only_where_that_is_allowed():
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(2, 2), "k": torch.nn.Linear(2, 2)})
    modules = tuple(SelectedModule(name=name, type=name, group=name) for name in ("q", "v"))
    selection = Selection(modules=modules)
    for strict in ({}, {"strict": True}):
        with pytest.raises(SelectionError, match="v"):
            selection.apply(model, **strict)
        assert all(value.requires_grad for value in model.parameters())
    selection.apply(model, strict=False)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {"q.weight", "q.bias"}
