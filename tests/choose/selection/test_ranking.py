"""Order and counts: the reference's rounding, ties, and invariants for any scores."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.choose.selection.compare import spearman
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.ranking import (
    Order,
    Rounding,
    check_percent,
    count_taken,
    group_name,
    rank_modules,
    take,
)
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.records import ModuleScore


def module(name: str, snr: float | None) -> ModuleScore:
    return ModuleScore(name=name, type="t", snr=snr, noise_free=snr is None)


def test_noise_free_first_then_falling_scores_then_natural_names():
    modules = [module("l.10.a", 2.0), module("l.3.a", None), module("l.2.a", 2.0), module("l.20.a", None)]
    modules += [module("l.1.a", 1e308), module("l.0.a", 0.0)]
    names = ["l.3.a", "l.20.a", "l.1.a", "l.2.a", "l.10.a", "l.0.a"]
    assert [entry.name for entry in rank_modules(modules)] == names


scores = st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, 2.0])


@settings(deadline=None)
@given(
    st.lists(scores, max_size=30).flatmap(lambda found: st.tuples(st.just(found), st.permutations(range(len(found)))))
)
def test_order_depends_on_scores_and_names_only(case):
    values, order = case
    modules = [module(f"l.{index}.a", value) for index, value in enumerate(values)]
    ranked = rank_modules(modules)
    assert rank_modules([modules[index] for index in order]) == ranked
    assert sorted(entry.name for entry in ranked) == sorted(entry.name for entry in modules)
    for better, worse in itertools.pairwise(ranked):
        assert better.rank_value >= worse.rank_value
        if better.snr == worse.snr:
            assert int(better.name.split(".")[1]) < int(worse.name.split(".")[1])


@settings(deadline=None)
@given(st.integers(0, 5000), st.floats(min_value=1e-6, max_value=100))
def test_counts_of_all_roundings(size, percent):
    reference, floor, ceil = (count_taken(size, percent, rounding) for rounding in get_args(Rounding))
    assert reference == int(size * percent / 100)
    exact = Decimal(repr(percent)) * size / 100
    assert floor <= exact < floor + 1
    assert ceil - 1 < exact <= ceil
    assert all(0 <= count <= size for count in (reference, floor, ceil))
    assert not size or ceil >= 1


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(min_value=0.01, max_value=100), st.floats(min_value=0.01, max_value=100))
def test_counts_never_fall_when_the_percentage_grows(size, one, other):
    low, high = sorted((one, other))
    for rounding in get_args(Rounding):
        assert count_taken(size, low, rounding) <= count_taken(size, high, rounding)


def test_singletons_are_taken_at_100_percent_only():
    assert [count_taken(1, percent) for percent in (1, 50, 99.99, 100)] == [0, 0, 0, 1]
    assert [count_taken(1, percent, "ceil") for percent in (1, 100)] == [1, 1]
    assert [count_taken(32, percent) for percent in (25, 50, 10)] == [8, 16, 3]


def test_exact_roundings_do_not_inherit_binary_error():
    assert 100 * 0.29 < 29  # what the exact forms must not see
    assert count_taken(10_000, 0.29, "floor") == 29
    assert count_taken(1000, 1.1, "ceil") == 11


@pytest.mark.parametrize("percent", [0, -1, 100.1, math.nan, math.inf, "25", None, True])
def test_percent_is_in_its_range(percent):
    with pytest.raises(UsageError, match=r"expected a number in \(0, 100\]"):
        check_percent(percent)


def test_groups():
    assert group_name("mlp.experts.17.down_proj", "type") == "mlp.experts.17.down_proj"
    assert group_name("mlp.experts.17.down_proj", "experts-merged") == "mlp.experts.*.down_proj"
    assert group_name("anything", "global") == "global"


def test_orders_take_from_the_top_from_the_bottom_and_by_chance():
    ranked = [module(f"l.{i}.a", 10.0 - i) for i in range(8)]
    assert take(ranked, 3, "top", 0, "a") == [0, 1, 2]
    assert take(ranked, 3, "bottom", 0, "a") == [7, 6, 5]
    assert take(ranked, 8, "bottom", 0, "a") == [7, 6, 5, 4, 3, 2, 1, 0]
    drawn = take(ranked, 3, "random", 0, "a")
    assert len(set(drawn)) == 3
    assert set(drawn) < set(range(8))
    assert sorted(take(ranked, 8, "random", 0, "a")) == list(range(8))
    assert all(take(ranked, 0, order, 0, "a") == [] for order in get_args(Order))


def test_a_draw_depends_on_its_seed_and_group_and_on_nothing_else():
    ranked = [module(f"l.{i}.a", 100.0 - i) for i in range(100)]
    assert take(ranked, 5, "random", 7, "a") == take(ranked[::-1], 5, "random", 7, "a")
    draws = {tuple(take(ranked, 5, "random", seed, group)) for seed in range(5) for group in "ab"}
    assert len(draws) == 10
    assert take(ranked, 5, "random", 0, "mlp.down_proj") == [94, 90, 80, 68, 95]  # on every machine


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SelectOptions(grouping="layer"),  # type: ignore[arg-type]
            "unknown grouping 'layer': expected one of type, experts-merged, global, reference",
        ),
        (lambda: SelectOptions(rounding="up"), "unknown rounding 'up': expected one of reference, floor, ceil"),  # type: ignore[arg-type]
        (lambda: SelectOptions(order="up"), "unknown order 'up': expected one of top, bottom, random"),  # type: ignore[arg-type]
        (lambda: check_percent("25"), "top percent: expected a number in (0, 100], found '25'"),
        (lambda: check_percent(101), "top percent: expected a number in (0, 100], found 101"),
        (lambda: count_taken(3, 0), "top percent: expected a number in (0, 100], found 0"),
    ],
)
def test_what_is_out_of_range_is_answered_with_the_range(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_percentages_in_range_come_back_as_they_are():
    for percent in (1e-9, 0.5, 25, 100):
        check_percent(percent)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6) | st.just(math.inf)), min_size=2, max_size=40))
def test_spearman_agrees_with_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert spearman(a, b) is None
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, stats.rankdata(b)).statistic, abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 10, 1000, 20_001])
def test_spearman_of_one_order_is_one_and_of_the_opposite_minus_one(size):
    values = [float(i // 3) for i in range(size - 1)] + [math.inf]
    assert spearman(values, values) == 1.0
    assert spearman(values, [-value for value in values]) == -1.0


def test_one_pair_or_none_has_no_correlation():
    assert spearman([1.0], [2.0]) is None
    assert spearman([], []) is None
