"""The index of names against trying every pair, as readers of an exported file do."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.choose.selection.readers.name_index import NameIndex

NAMES = st.lists(st.text(alphabet="ab.", min_size=1, max_size=7), max_size=12)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(NAMES, st.text(alphabet="ab.", min_size=1, max_size=4))
def test_every_lookup_against_brute_force(names, entry):
    index = NameIndex(names, [entry])
    known = sorted(set(names))
    assert index.starting_with(entry) == [name for name in known if name.startswith(entry)]
    assert sorted(index.matching_dots(entry)) == [name for name in known if re.match(entry, name)]
    assert set(index.containing(entry)) == {name for name in known if entry in name[1:]}


def test_an_entry_beyond_the_last_name_matches_nothing():
    index = NameIndex(["a.b"], {"a", "z"})
    assert index.matching_dots("a.z") == index.matching_dots("z.z") == index.starting_with("z") == []
    assert NameIndex([], {"a"}).matching_dots("a.b") == []


def test_a_name_that_ends_where_the_dot_is_does_not_hide_the_next():
    assert NameIndex(["a", "a.b.c", "axb"], {"a"}).matching_dots("a.b") == ["a.b.c", "axb"]


def test_every_occurrence_after_the_start_is_found():
    index = NameIndex(["a.x.a.y.a.z.a.w", "xaab"], {"a"})
    for entry in ("a.y", "a.z", "a.w", "a.y.a"):
        assert index.containing(entry) == ["a.x.a.y.a.z.a.w"]
    assert index.containing("a.x") == []
    assert index.containing("ab") == ["xaab"]
    assert index.containing("aab") == ["xaab"]
