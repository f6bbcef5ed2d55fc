"""Two scans side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spectrum_fast.choose.selection.compare import compare_scans
from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.use.report.comparison import comparison_table

PUBLISHED = Path(__file__).parents[3] / ".." / "shared" / "data" / "published_snr"


def scan(**scores: float | None) -> Scan:
    modules = tuple(
        ModuleScore(name=f"l.{key[1:]}.{key[0]}", type=key[0], snr=snr, noise_free=snr is None)
        for key, snr in scores.items()
    )
    return Scan("m", "spectrum", modules)


def test_a_scan_equals_itself():
    one = scan(a0=1.0, a1=2.0, a2=None, b0=3.0, b1=1.0)
    result = compare_scans(one, one, 50)
    assert (result.max_relative, result.median_relative, result.spearman) == (0.0, 0.0, 1.0)
    assert result.spearman_by_type == {"a": 1.0, "b": 1.0}
    assert (result.overlap.n_a, result.overlap.n_b, result.overlap.n_both, result.overlap.jaccard) == (2, 2, 2, 1.0)
    assert result.only_a == result.only_b == result.noise_free_mismatches == ()


def test_differences_of_every_kind():
    one = scan(a0=1.0, a1=2.0, a2=None, a3=4.0, a4=0.0, b0=3.0)
    other = scan(a0=1.1, a1=1.0, a2=None, a3=None, a4=0.0, c0=9.0)
    result = compare_scans(one, other, 50)
    assert [entry.relative for entry in result.differences] == [pytest.approx(0.1 / 1.1), 0.5, 0.0, None, 0.0]
    assert result.max_relative == 0.5
    assert result.median_relative == pytest.approx(0.1 / 1.1 / 2)
    assert result.noise_free_mismatches == ("l.3.a",)
    assert (result.only_a, result.only_b) == (("l.0.b",), ("l.0.c",))
    # ranks 2 3 5 4 1 against 3 2 4.5 4.5 1
    assert result.spearman == pytest.approx(0.8720815992723809)
    assert result.overlap.n_both == 2
    swapped = compare_scans(other, one, 50)
    assert swapped.spearman == pytest.approx(result.spearman)
    assert swapped.max_relative == result.max_relative


def test_overlap_counts():
    one = scan(a0=4.0, a1=3.0, a2=2.0, a3=1.0)
    other = scan(a0=4.0, a1=1.0, a2=3.0, a3=2.0)
    overlap = one.compare(other, 50).overlap
    assert (overlap.n_a, overlap.n_b, overlap.n_both, overlap.jaccard) == (2, 2, 1, pytest.approx(1 / 3))


def test_nothing_in_common_and_constant_scores():
    result = compare_scans(scan(a0=1.0), scan(b0=1.0))
    assert (result.max_relative, result.median_relative, result.spearman) == (None, None, None)
    assert result.overlap.jaccard == 1.0
    constant = scan(a0=1.0, a1=1.0)
    assert compare_scans(constant, constant).spearman is None
    with pytest.raises(UsageError):
        compare_scans(constant, constant, 0)


def test_the_answer_says_what_was_compared():
    one = Scan("first", "spectrum", (ModuleScore(name="l.0.a", type="a", snr=2.0),))
    other = Scan("second", "spectrum", (ModuleScore(name="l.0.a", type="b", snr=4.0),))
    result = compare_scans(one, other)
    assert (result.model_a, result.model_b, result.top_percent) == ("first", "second", 25)
    (entry,) = result.differences
    assert (entry.name, entry.type, entry.snr_a, entry.snr_b, entry.relative) == ("l.0.a", "a", 2.0, 4.0, 0.5)
    assert list(result.spearman_by_type) == ["a"]
    assert one.compare(other) == result
    assert one.compare(other, 50).top_percent == 50


def test_groups_too_small_to_give_any_module_agree():
    for pair in [(scan(a0=1.0), scan(a0=2.0)), (scan(a0=1.0), scan(b0=1.0))]:
        overlap = compare_scans(*pair, 50).overlap
        assert (overlap.n_a, overlap.n_b, overlap.n_both, overlap.jaccard) == (0, 0, 0, 1.0)


def test_nothing_is_trained_always_in_the_overlap_and_parts_stand_for_themselves():
    names = ["lm_head", "model.embed_tokens", "model.layers.0.up", "model.layers.1.up"]
    modules = [ModuleScore(name=name, type=name.split(".")[-1], snr=1.0) for name in names]
    # parts without the sums of which a score of the whole would be made
    modules += [
        ModuleScore(name=f"l.0.experts.{e}.up", type=f"{e}.up", parameter="l.0.experts.up", parts=2, snr=1.0 + e)
        for e in range(2)
    ]
    one = Scan("m", "spectrum", tuple(modules))
    assert one.compare(one, 50).overlap.n_both == 1
    assert one.compare(one, 100).overlap.n_both == 6


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published results are not beside the checkout")
def test_two_published_models_share_names_and_little_else():
    llama = load_scan(PUBLISHED / "snr_results_meta-llama-Meta-Llama-3.1-8B.json")
    mistral = load_scan(PUBLISHED / "snr_results_mistralai-Mistral-7B-v0.1.json")
    result = compare_scans(llama, mistral)
    assert len(result.differences) == 224
    assert len(result.only_a) == 67
    assert result.only_b == ()
    assert result.spearman is not None
    assert -1 < result.spearman < 1
    assert result.overlap.n_a == result.overlap.n_b == 56


def test_types_of_different_scale_are_no_agreement():
    """Two models whose types differ in scale alike, and whose layers stand in opposite orders."""
    one = scan(**{f"a{i}": 1.0 + i for i in range(4)}, **{f"b{i}": 100.0 + i for i in range(4)})
    other = scan(**{f"a{i}": 1.0 - i / 10 for i in range(4)}, **{f"b{i}": 100.0 - i for i in range(4)})
    result = compare_scans(one, other)
    assert result.spearman is not None
    assert result.spearman > 0.5
    assert result.spearman_within_types == -1.0


def test_scores_of_two_criteria_have_no_ratio():
    one = scan(a0=1.0, a1=2.0)
    result = compare_scans(one, replace(scan(a0=10.0, a1=30.0), criterion="mp"))
    assert (result.criterion_a, result.criterion_b) == ("spectrum", "mp")
    assert (result.max_relative, result.median_relative, result.noise_free_mismatches) == (None, None, ())
    assert result.spearman_within_types == 1.0
    lines = [str(part) for part in comparison_table(result, ("one.json", "two.json")).renderables]  # type: ignore[attr-defined]
    assert lines[0] == "a: m by spectrum in one.json"
    assert any("no common scale" in line for line in lines)
    assert not any("all scores are equal" in line for line in lines)
