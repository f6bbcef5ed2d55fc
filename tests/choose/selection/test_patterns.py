"""Patterns on names: what is refused, and which names a typing error is answered with."""

from __future__ import annotations

import pytest

from spectrum_fast.choose.selection.patterns import compile_pattern, match_patterns
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.words import near_names_text, nearest_names


@pytest.mark.parametrize("pattern", ["", "re:", None, 3])
def test_a_pattern_that_says_nothing_is_refused(pattern):
    with pytest.raises(UsageError) as caught:
        compile_pattern(pattern)
    assert str(caught.value) == f"expected a name pattern, found {pattern!r}"


def test_a_shell_pattern_covers_the_whole_name_and_a_regular_expression_any_part():
    assert compile_pattern("a.?").search("a.b")
    assert not compile_pattern("a.?").search("x.a.b")
    assert not compile_pattern("a.?").search("a.bc")
    assert compile_pattern("re:a.").search("x.a.b")
    assert compile_pattern("*re:").search("are:")  # the prefix is one at the beginning only


def test_the_purpose_is_in_every_message():
    with pytest.raises(UsageError, match=r"^--include: expected a list of patterns, found one text 'a'$"):
        match_patterns("a", ["a"], "--include")
    with pytest.raises(SelectionError, match=r"^--include: pattern 'zzz' matches no module$"):
        match_patterns(["zzz"], ["a"], "--include")


def test_names_with_the_same_ending_go_before_names_that_look_more_alike():
    known = ["model.layers.10.mlp.q_proj", "model.layers.1.attn.o_proj", "lm_head"]
    assert nearest_names("model.layers.1.attn.q_proj", known) == ["model.layers.10.mlp.q_proj"]
    assert nearest_names("q_proj", ["q_proj.x", "x.q_proj"]) == ["x.q_proj"]


def test_an_ending_alone_is_not_near():
    """Far names with the same ending give way to those that look alike whatever their ending."""
    known = ["a_very_long_tower_of_vision.blocks.3.w", "model.layers.1.wq"]
    assert nearest_names("model.layers.1.w", known) == ["model.layers.1.wq"]


def test_at_most_three_names_are_proposed_the_nearest_first():
    known = [f"model.layers.{i}.q_proj" for i in range(20)]
    assert len(nearest_names("model.layers.99.q_proj", known)) == 3
    assert nearest_names("model.layers.77.q_prok", known)[0] == "model.layers.7.q_proj"
    assert len(nearest_names("model.layers.77.q_prok", known)) == 3
    assert len(nearest_names("model.layers.99.q_proj", known, limit=5)) == 5
    assert len(nearest_names("model.layers.99.q_prok", known, limit=5)) == 5


def test_names_that_share_less_than_half_are_still_proposed():
    assert nearest_names("lm_haed", ["embed_hd"]) == ["embed_hd"]
    assert nearest_names("abc", ["xyz"]) == []


def test_the_end_of_a_message():
    assert near_names_text("lm_haed", ["lm_head", "lm_heads"]) == "; nearest: lm_head, lm_heads"
    assert near_names_text("abc", ["xyz"]) == ""
