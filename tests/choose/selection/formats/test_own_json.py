"""The selection file itself: its layout, files from before a field was added, and numbers that JSON does not have."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from spectrum_fast.choose.selection.formats import write_selection
from spectrum_fast.choose.selection.formats.own_json import format_own
from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup
from spectrum_fast.choose.selection.selection import Selection, load_selection, parse_selection
from spectrum_fast.errors import SelectionError

MODULE = SelectedModule(
    name="l.0.q",
    type="q",
    group="q",
    parameter="l.0.q.weight",
    shape=(4, 6),
    snr=0.1 + 0.2,
    rank=1,
    group_size=4,
    parameter_shape=(2, 4, 6),
)
GROUP = SelectionGroup(
    name="q", taken=1, size=4, always=("lm_head",), last_taken="l.0.q", first_left_out="l.1.q", gap=0.5, undecided=True
)
FULL = Selection(
    model="m",
    criterion="mp",
    top_percent=25.0,
    grouping="type",
    rounding="ceil",
    order="random",
    seed=7,
    always_rule="custom",
    always=("lm_head",),
    modules=(MODULE,),
    groups=(GROUP,),
    failed=("x",),
    fused="parts",
)


def test_one_module_and_one_group_a_line():
    text = write_selection(FULL)
    lines = text.splitlines()
    assert lines[0] == "{"
    assert lines[1:4] == ['"schema": 1,', '"kind": "selection",', '"model": "m",']
    assert sum(line.startswith(' {"name": ') for line in lines) == 2
    assert parse_selection(text) == parse_selection(f"\n {text}") == FULL
    with pytest.raises(SelectionError, match=r"^selection: expected module names, found none$"):
        parse_selection("")
    empty = write_selection(Selection(modules=()))
    assert empty.endswith('"modules": [],\n"groups": []\n}\n')
    assert parse_selection(empty) == Selection(modules=())


def test_files_from_before_a_field_was_added_are_read_with_what_it_meant_then():
    document = json.loads(write_selection(FULL))
    for key in ("fused", "order", "seed"):
        del document[key]
    del document["modules"][0]["parameter_shape"]
    read = parse_selection(json.dumps(document))
    assert read == replace(FULL, fused=None, order="top", seed=None, modules=(replace(MODULE, parameter_shape=None),))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_number_that_json_lacks_is_ever_written(number):
    for broken in (
        replace(FULL, modules=(replace(MODULE, snr=number),)),
        replace(FULL, groups=(replace(GROUP, gap=number),)),
        replace(FULL, top_percent=number),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_selection(broken)


def test_saving_names_the_format(tmp_path):
    FULL.save(tmp_path / "selection.json")
    assert load_selection(tmp_path / "selection.json") == FULL
    FULL.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == write_selection(FULL)
    FULL.save(tmp_path / "names.txt", "names")
    assert (tmp_path / "names.txt").read_text() == "lm_head\nl.0.q\n"


def test_errors_of_a_file_name_its_path_and_the_module_that_stands_twice(tmp_path):
    path = tmp_path / "selection.json"
    path.write_text(format_own(replace(FULL, modules=(MODULE, replace(MODULE, name="l.1.q"), MODULE))))
    with pytest.raises(SelectionError) as caught:
        load_selection(path)
    assert str(caught.value) == f"{path}: expected each module once, found 'l.0.q' twice"


@pytest.mark.parametrize("text", ["\n# mine\n l.0.q.weight \n\nl.1.k\nl.0.q\n", '["l.0.q.weight", "l.1.k", "l.0.q"]'])
def test_lists_of_names_know_names_and_types_only(text):
    assert parse_selection(text) == Selection(
        modules=(
            SelectedModule(name="l.0.q", type="q", group="q"),
            SelectedModule(name="l.1.k", type="k", group="k"),
        ),
        always_rule="none",
    )
