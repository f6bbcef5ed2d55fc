"""The reference's YAML as others write it: what is read, and what is refused with its line."""

from __future__ import annotations

import pytest

from spectrum_fast.choose.selection.formats.reference_yaml import format_reference_yaml, read_reference_yaml
from spectrum_fast.choose.selection.records import SelectedModule
from spectrum_fast.choose.selection.selection import Selection, parse_selection
from spectrum_fast.errors import SelectionError


def read(*lines: str) -> Selection:
    return parse_selection("".join(f"{line}\n" for line in ("unfrozen_parameters:", *lines)), "s.yaml")


def refusal(*lines: str) -> str:
    with pytest.raises(SelectionError) as caught:
        read(*lines)
    return str(caught.value)


def test_without_comments_modules_are_grouped_by_type():
    selection = read("- l.0.q", "- l.1.k", "- l.1.q")
    assert [(module.name, module.type, module.group) for module in selection.modules] == [
        ("l.0.q", "q", "q"),
        ("l.1.q", "q", "q"),
        ("l.1.k", "k", "k"),
    ]
    assert [(group.name, group.taken, group.size) for group in selection.groups] == [("q", 2, None), ("k", 1, None)]
    assert (selection.always, selection.always_rule) == ((), "none")


def test_a_comment_names_the_group_of_what_follows_and_the_type_comes_from_the_name():
    selection = read("- ^lm_head.weight$", "#  global layers", "- l.0.q", "- l.1.k", "# empty layers")
    assert [(module.name, module.type, module.group) for module in selection.modules] == [
        ("l.0.q", "q", "global"),
        ("l.1.k", "k", "global"),
    ]
    assert [(group.name, group.taken) for group in selection.groups] == [("global", 2), ("empty", 0)]
    assert (selection.always, selection.always_rule) == (("lm_head",), "custom")


def test_an_anchored_entry_inside_a_group_competed_there():
    selection = read("# q layers", "- ^l.0.q$", "- ^l.1.q.weight")
    assert [(module.name, module.group) for module in selection.modules] == [("l.0.q", "q"), ("l.1.q", "q")]
    assert selection.always == ()


def test_a_module_trained_always_is_listed_once():
    selection = read("- ^lm_head.weight$", "- ^lm_head$", "# lm_head layers", "- lm_head", "# q layers", "- l.0.q")
    assert selection.names == ("lm_head", "l.0.q")


@pytest.mark.parametrize(
    "entry",
    ["- l.0.q", "  - l.0.q.weight", "- 'l.0.q'", '- "l.0.q"', "-   l\\.0\\.q  ", "\t- l.0.q", '- "l\\.0\\.q.weight"'],
)
def test_every_spelling_of_an_entry(entry):
    assert read(entry).names == ("l.0.q",)


def test_one_letter_is_a_name_in_quotes_too():
    assert read("- a", "- 'b'").names == ("a", "b")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("- l.[01].q", "'l.[01].q'"),
        ("- ^l.0.q.weight$[:10]", "'^l.0.q.weight$[:10]'"),
        ("- 'l.0.q", '"\'l.0.q"'),
        ("- l.0.q'", '"l.0.q\'"'),
        ("- '", '"\'"'),
        ("- ''", "\"''\""),
        ("- l.0.q^", "'l.0.q^'"),
    ],
)
def test_what_is_no_name_is_refused_with_its_line(entry, found):
    assert refusal("- l.0.k", "", entry) == (
        f"s.yaml, line 4: expected a module name, found {found}; regular expressions and row ranges cannot be read "
        "back as a selection"
    )


@pytest.mark.parametrize("line", ["  key: 1", "-l.0.q", "-", " x"])
def test_what_is_no_entry_is_refused_with_its_line(line):
    assert refusal("- l.0.k", line) == f"s.yaml, line 3: expected an entry '- name', found {line.strip()!r}"


def test_the_list_ends_at_the_next_key_and_the_rest_is_not_looked_at():
    assert read("- l.0.k", "# a comment", "x: 1", "- [1]", "  - {}").names == ("l.0.k",)
    assert parse_selection("a: 1\nunfrozen_parameters: # these\n- l.0.k\n", "s").names == ("l.0.k",)


def test_modules_of_a_group_that_is_not_described_are_written_all_the_same():
    modules = tuple(SelectedModule(name=f"l.{i}.q", type="q", group="q") for i in range(2))
    selection = Selection(modules=modules, always_rule="none")
    assert format_reference_yaml(selection) == "unfrozen_parameters:\n# q layers\n- l.0.q\n- l.1.q\n"


def test_a_text_without_the_list():
    with pytest.raises(SelectionError, match=r"^s: expected a list 'unfrozen_parameters:', found none$"):
        read_reference_yaml("a: 1\n", "s")
    with pytest.raises(SelectionError) as caught:
        parse_selection("x: 1\nunfrozen_parameters: [a]\n", "s.yaml")
    assert str(caught.value) == (
        "s.yaml, line 2: expected one entry a line after 'unfrozen_parameters:', found 'unfrozen_parameters: [a]'"
    )
