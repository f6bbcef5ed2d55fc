"""Selections from scans: groups, patterns, always-modules, cuts, incomplete scans."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.choose.selection.patterns import match_patterns
from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.read.checkpoint.naming import module_type

from support.scans import named_model


def module(name: str, snr: float | None, error_bound: float | None = 1e-4) -> ModuleScore:
    return ModuleScore(
        name=name, type=module_type(name), snr=snr, noise_free=snr is None, error_bound=error_bound, shape=(4, 4)
    )


def model(layers: int = 8, **extra: float | None) -> Scan:
    modules = [module(f"model.layers.{i}.mlp.up_proj", 1.0 + i) for i in range(layers)]
    modules += [module(f"model.layers.{i}.mlp.gate", 50.0 - i) for i in range(layers)]
    modules += [module("model.embed_tokens", 5.0), module("lm_head", None)]
    return Scan("m", "spectrum", tuple(modules) + tuple(module(name, snr) for name, snr in extra.items()))


def names(selection) -> list[str]:
    return [entry.name.removeprefix("model.layers.") for entry in selection.modules]


def test_best_of_each_type_in_scan_order_of_groups():
    selection = model().select(25)
    assert names(selection) == ["7.mlp.up_proj", "6.mlp.up_proj", "0.mlp.gate", "1.mlp.gate"]
    assert selection.always == ("model.embed_tokens", "lm_head")
    assert [(entry.rank, entry.group_size) for entry in selection.modules] == [(1, 8), (2, 8), (1, 8), (2, 8)]
    assert [(group.name, group.taken, group.size) for group in selection.groups] == [
        ("mlp.up_proj", 2, 8),
        ("mlp.gate", 2, 8),
        ("model.embed_tokens", 0, 0),
        ("lm_head", 0, 0),
    ]
    up = selection.groups[0]
    assert (up.last_taken, up.first_left_out) == ("model.layers.6.mlp.up_proj", "model.layers.5.mlp.up_proj")
    assert up.gap == pytest.approx((7 - 6) / 7)
    assert not up.undecided
    assert selection.groups[3].always == ("lm_head",)
    assert selection.names[:3] == ("model.embed_tokens", "lm_head", "model.layers.7.mlp.up_proj")


def test_global_grouping_ranks_all_together():
    selection = model().select(25, grouping="global")
    assert names(selection) == ["0.mlp.gate", "1.mlp.gate", "2.mlp.gate", "3.mlp.gate"]
    assert [(group.name, group.size) for group in selection.groups] == [("global", 16)]


def test_experts_merged_grouping():
    modules = [module(f"model.layers.{i}.mlp.experts.{e}.up_proj", 10.0 * i + e) for i in range(2) for e in range(4)]
    scan = Scan("m", "spectrum", tuple(modules))
    assert len(scan.select(50, grouping="type").groups) == 4
    merged = scan.select(50, grouping="experts-merged")
    assert [group.name for group in merged.groups] == ["mlp.experts.*.up_proj"]
    assert names(merged) == [f"1.mlp.experts.{e}.up_proj" for e in (3, 2, 1, 0)]


def test_always_none_lets_embeddings_compete_and_patterns_name_others():
    selection = model().select(100, always="none")
    assert (selection.always, selection.always_rule) == ((), "none")
    assert "lm_head" in selection.names
    assert "lm_head" not in model().select(99, always="none").names
    custom = model().select(25, always=["model.layers.0.*", "lm_head"])
    assert custom.always == ("model.layers.0.mlp.up_proj", "model.layers.0.mlp.gate", "lm_head")
    assert names(custom) == ["7.mlp.up_proj", "1.mlp.gate"]  # int(7 * 0.25) of the other seven
    assert custom.always_rule == "custom"
    assert (model().select(25, always=[]).always, model().select(25, always=[]).always_rule) == ((), "none")
    with pytest.raises(SelectionError, match=r"always: pattern 'lm_haed' matches no module; nearest: .*lm_head"):
        model().select(25, always=["lm_haed"])
    with pytest.raises(UsageError, match="expected 'default', 'none' or a list"):
        model().select(25, always="lm_head")


def test_a_tied_head_is_always_trained_under_both_names():
    scan = model()
    tied = Scan(scan.model, scan.criterion, scan.modules[:-1], ties={"lm_head": "model.embed_tokens"})
    assert tied.select(25).always == ("model.embed_tokens", "lm_head")


def test_include_and_exclude():
    assert names(model().select(50, include=["*.up_proj"])) == [f"{i}.mlp.up_proj" for i in (7, 6, 5, 4)]
    assert names(model().select(50, include=["re:layers\\.[01]\\."])) == ["1.mlp.up_proj", "0.mlp.gate"]
    excluded = model().select(25, exclude=["*.gate", "lm_head"])
    assert names(excluded) == ["7.mlp.up_proj", "6.mlp.up_proj"]
    assert excluded.always == ("model.embed_tokens",)
    with pytest.raises(SelectionError, match=r"include: pattern '\*\.upproj' matches no module"):
        model().select(25, include=["*.upproj"])
    with pytest.raises(SelectionError, match="exclude: pattern 're:nothing' matches no module"):
        model().select(25, exclude=["re:nothing"])
    with pytest.raises(UsageError, match="expected a regular expression after 're:'"):
        model().select(25, exclude=["re:("])
    with pytest.raises(UsageError, match="expected a list of patterns, found one text"):
        model().select(25, include="*.gate")
    with pytest.raises(SelectionError, match="nothing to select from"):
        model().select(25, exclude=["*"])


def test_patterns_match_whole_names_and_case_counts():
    known = ["a.b", "a.bc", "A.b", "x.a.b"]
    assert match_patterns(["a.b"], known, "x") == {"a.b"}
    assert match_patterns(["a.*"], known, "x") == {"a.b", "a.bc"}
    assert match_patterns(["re:a.b$", "a.b[c]"], known, "x") == {"a.b", "x.a.b", "a.bc"}


@pytest.mark.parametrize(
    ("above", "below", "gap", "undecided"),
    [
        ((2.0, 1e-4), (1.0, 1e-4), 0.5, False),
        ((1.0001, 1e-4), (1.0, 1e-4), 1e-4 / 1.0001, True),
        ((1.0003, 1e-4), (1.0, 1e-4), 3e-4 / 1.0003, False),
        ((1.0, None), (1.0, None), 0.0, True),
        ((1.0001, None), (1.0, None), 1e-4 / 1.0001, False),
        ((None, 0.0), (None, 0.0), 0.0, True),
        ((None, 0.0), (9.0, 0.0), None, False),
        ((0.0, 0.0), (0.0, 0.0), 0.0, True),
    ],
)
def test_gap_at_the_cut(above, below, gap, undecided):
    scan = Scan("m", "spectrum", (module("l.0.a", *above), module("l.1.a", *below)))
    (group,) = scan.select(50).groups
    assert group.gap == (None if gap is None else pytest.approx(gap))
    assert group.undecided is undecided


@pytest.mark.parametrize(
    ("scores", "undecided"),
    [
        ([(4.0, 0.0), (3.0, 0.0), (2.0, 0.0), (1.0, 0.0)], False),
        ([(4.0, 0.0), (3.0, 0.0), (2.0, 0.0), (1.0, 0.7)], True),  # the last may be 3.3
        ([(4.0, 1.5), (3.0, 0.0), (2.0, 0.0), (1.0, 0.0)], True),  # the first may be 1.6
        ([(4.0, 1.0), (3.0, 0.0), (2.0, 0.0), (1.0, 0.5)], True),  # as high as as low
        ([(4.0, 0.9), (3.0, 0.0), (2.0, 0.0), (1.0, 0.5)], False),
        ([(4.0, 0.0), (3.0, 0.0), (2.0, 0.0), (1.0, 1.0)], True),  # a bound of 1 and more says nothing upwards
        ([(None, 0.0), (None, 9.0), (2.0, 9.0), (1.0, 0.0)], False),
        ([(None, 0.0), (None, 0.0), (None, 0.0), (1.0, 0.0)], True),
        ([(None, 0.0), (3.0, 0.7), (2.0, 0.0), (1.0, 0.0)], True),
        ([(None, 0.0), (3.0, None), (2.0, None), (1.0, 0.0)], False),
    ],
)
def test_a_cut_is_undecided_where_any_module_left_out_may_score_as_high_as_any_taken(scores, undecided):
    scan = Scan("m", "spectrum", tuple(module(f"l.{i}.a", *score) for i, score in enumerate(scores)))
    (group,) = scan.select(50).groups
    assert group.undecided is undecided


def test_incomplete_scans_are_refused_by_name():
    scan = model()
    failed = ScanFailure(name="model.layers.9.mlp.up_proj", kind="nan", message="holds NaN")
    scan = Scan(scan.model, scan.criterion, scan.modules, (failed,))
    with pytest.raises(SelectionError, match=r"1 tensor has no score: model\.layers\.9\.mlp\.up_proj \(nan: holds NaN"):
        scan.select(25)
    selection = scan.select(25, allow_incomplete=True)
    assert selection.failed == ("model.layers.9.mlp.up_proj",)
    assert "left out, because they have no score: model.layers.9.mlp.up_proj" in selection.summary()
    assert scan.select(25, exclude=["model.layers.9.*"]).failed == ()
    assert scan.select(25, include=["*.gate"]).failed == ()


@pytest.mark.parametrize(("count", "more"), [(8, ""), (9, "; and 1 more"), (20, "; and 12 more")])
def test_the_first_eight_failures_are_named_with_the_way_out(count, more):
    failures = tuple(ScanFailure(name=f"f.{i}", kind="nan", message="holds NaN") for i in range(count))
    with pytest.raises(SelectionError) as caught:
        Scan("some/model", "spectrum", (module("l.0.a", 1.0),), failures).select(25)
    shown = "; ".join(f"f.{i} (nan: holds NaN)" for i in range(8))
    assert str(caught.value) == (
        f"scan of some/model is incomplete: {count} tensors have no score: {shown}{more}. "
        "Repair the checkpoint, exclude them, or allow an incomplete selection (allow_incomplete)"
    )


def test_empty_scan_and_bad_arguments():
    with pytest.raises(SelectionError, match="nothing to select from"):
        Scan("m", "spectrum", ()).select(25)
    with pytest.raises(UsageError):
        model().select(0)
    with pytest.raises(UsageError, match="unknown rounding"):
        model().select(25, rounding="up")


def test_summary_names_groups_and_ties():
    text = model().select(25).summary()
    assert text.splitlines()[0] == "m: top 25 %, 4 modules of 16 in 4 groups, and 2 always: model.embed_tokens, lm_head"
    assert "  mlp.up_proj: 2 of 8, gap at the cut 14 %" in text
    assert "  lm_head: trained always" in text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.none() | st.floats(0, 1e6) | st.sampled_from([0.0, 1.0])),
        min_size=1,
        max_size=40,
    ),
    st.floats(0.5, 100),
    st.floats(0.5, 100),
    st.sampled_from(["type", "experts-merged", "global"]),
    st.sampled_from(["reference", "floor", "ceil"]),
)
def test_a_larger_percentage_selects_a_superset(drawn, one, other, grouping, rounding):
    modules = tuple(module(f"l.{i}.experts.{kind}.w", snr) for i, (kind, snr) in enumerate(drawn))
    scan = Scan("m", "spectrum", modules)
    low, high = (scan.select(percent, grouping=grouping, rounding=rounding) for percent in sorted((one, other)))
    assert set(low.names) <= set(high.names)
    for selection in (low, high):
        assert sum(group.taken for group in selection.groups) == len(selection.modules)
        chosen = set(selection.names)
        for group in selection.groups:
            inside = [entry for entry in selection.modules if entry.group == group.name]
            assert [entry.rank for entry in inside] == list(range(1, len(inside) + 1))
            assert all(entry.group_size == group.size for entry in inside)
        left = [entry for entry in modules if entry.name not in chosen]
        if grouping == "global" and left and selection.modules:
            worst = selection.modules[-1]
            assert max(entry.rank_value for entry in left) <= (float("inf") if worst.snr is None else worst.snr)


def test_the_method_of_a_scan_passes_everything_on():
    scan = model(one=3.0, two=4.0)
    scan = Scan(scan.model, scan.criterion, scan.modules, (ScanFailure(name="x", kind="nan", message="y"),))
    defaults = {key: value.default for key, value in inspect.signature(Scan.select).parameters.items()}
    arguments = {
        "top_percent": 40,
        "grouping": "global",
        "rounding": "ceil",
        "include": ["*.mlp.*", "one", "x"],
        "exclude": ["*.0.*"],
        "only": ["language-model"],
        "always": ["one"],
        "allow_incomplete": True,
        "fused": "parts",
        "order": "random",
        "seed": 3,
        "criterion": "spectrum",
    }
    assert set(arguments) == set(defaults) - {"self"}
    selection = scan.select(**arguments)
    kept = {"top_percent", "grouping", "rounding", "fused", "order", "seed"}
    assert {key: getattr(selection, key) for key in kept} == {key: arguments[key] for key in kept}
    assert (selection.model, selection.criterion, selection.failed) == ("m", "spectrum", ("x",))
    assert (selection.always, selection.always_rule, len(selection.modules)) == (("one",), "custom", 6)
    assert not any(".0." in name for name in selection.names)


def test_the_defaults_are_the_documented_ones():
    selection = model().select()
    assert (selection.top_percent, selection.grouping, selection.rounding) == (25, "type", "reference")
    assert model().select(order="random") == model().select(order="random", seed=0)
    failed = Scan("m", "spectrum", model().modules, (ScanFailure(name="x", kind="nan", message="y"),))
    with pytest.raises(SelectionError, match="is incomplete"):
        failed.select()
    assert (selection.fused, selection.order, selection.seed, selection.always_rule) == (
        "parameter",
        "top",
        None,
        "default",
    )


@pytest.mark.parametrize("order", ["bottom", "random"])
def test_a_control_takes_as_many_of_each_group_and_has_no_cut(order):
    top, control = model().select(25), model().select(25, order=order, seed=1)
    assert [(group.name, group.taken, group.size, group.always) for group in control.groups] == [
        (group.name, group.taken, group.size, group.always) for group in top.groups
    ]
    assert control.always == top.always
    for group in control.groups:
        assert (group.last_taken, group.first_left_out, group.gap, group.undecided) == (None, None, None, False)
    if order == "bottom":
        assert names(control) == ["0.mlp.up_proj", "1.mlp.up_proj", "7.mlp.gate", "6.mlp.gate"]
        assert [(entry.rank, entry.group_size) for entry in control.modules] == [(8, 8), (7, 8), (8, 8), (7, 8)]
    else:
        assert control == model().select(25, order="random", seed=1)
        assert control.seed == 1
        assert control.modules != model().select(25, order="random", seed=2).modules


def test_every_group_has_a_draw_of_its_own():
    for seed in range(5):
        ranks = [entry.rank for entry in model(40).select(25, order="random", seed=seed).modules]
        assert ranks[:10] != ranks[10:]


def test_a_selected_module_carries_what_the_scan_knows():
    one = ModuleScore(
        name="l.0.experts.1.w",
        type="experts.1.w",
        parameter="l.0.experts.w",
        shape=(4, 6),
        snr=2.0,
        parts=2,
        parameter_shape=(2, 4, 6),
    )
    free = ModuleScore(name="l.0.b", type="b", parameter="l.0.b.weight", snr=None, noise_free=True, shape=(4, 4))
    (first, second) = Scan("m", "spectrum", (one, free)).select(100, fused="parts").modules
    assert (first.name, first.type, first.group, first.parameter) == (one.name, one.type, one.type, one.parameter)
    assert (first.shape, first.parameter_shape) == ((4, 6), (2, 4, 6))
    assert (first.snr, first.noise_free, first.rank, first.group_size) == (2.0, False, 1, 1)
    assert (second.name, second.snr, second.noise_free) == ("l.0.b", None, True)


def test_cuts_at_the_ends_of_a_group():
    (all_taken,) = Scan("m", "spectrum", (module("l.0.a", 2.0), module("l.1.a", 1.0))).select(100).groups
    assert (all_taken.last_taken, all_taken.first_left_out, all_taken.gap) == ("l.1.a", None, None)
    (none_taken,) = Scan("m", "spectrum", (module("l.0.a", 2.0),)).select(50).groups
    assert (none_taken.last_taken, none_taken.first_left_out, none_taken.undecided) == (None, "l.0.a", False)


def test_saving_and_loading_gives_the_same_scan(tmp_path):
    scan = model()
    scan.save(tmp_path / "scan.json")
    loaded = load_scan(tmp_path / "scan.json")
    assert loaded == scan
    assert isinstance(loaded, Scan)
    assert loaded.select(25) == scan.select(25)


def test_tables_of_a_vision_tower_are_not_trained_always():
    tables = ("model.vision_tower.vision_model.embeddings.position_embedding", "model.language_model.embed_tokens")
    selection = named_model(*tables, "audio_tower.embed_positions", "lm_head", "model.layers.0.q").select(100)
    assert selection.always == ("model.language_model.embed_tokens", "lm_head")
    assert {module.name for module in selection.modules} == {
        tables[0],
        "audio_tower.embed_positions",
        "model.layers.0.q",
    }
