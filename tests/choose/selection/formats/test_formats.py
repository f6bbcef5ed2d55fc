"""Interchange: byte-for-byte parity with published files and with hand-written ones, round trips, malformations."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from spectrum_fast.choose.library.file_names import reference_file_name
from spectrum_fast.choose.selection.export.ambiguity import export_warnings, unintended_matches
from spectrum_fast.choose.selection.formats import (
    FORMATS,
    SCAN_FORMATS,
    SELECTION_FORMATS,
    write_scores,
    write_selection,
)
from spectrum_fast.choose.selection.records import SelectedModule, SelectionGroup
from spectrum_fast.choose.selection.scan_result import Scan, load_scan
from spectrum_fast.choose.selection.selection import Selection, load_selection, parse_selection
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.read.checkpoint.naming import module_type

DATA = Path(__file__).parent / "data"
PUBLISHED = Path(__file__).parents[4] / ".." / "shared" / "data" / "published_snr"
LLAMA = PUBLISHED / "snr_results_meta-llama-Meta-Llama-3.1-8B.json"
LLAMA_YAML = PUBLISHED / "snr_results_meta-llama-Meta-Llama-3.1-8B_unfrozenparameters_50percent.yaml"
SCORES = [path for path in sorted(PUBLISHED.glob("*.json")) if path.stat().st_size > 10]

needs_published = pytest.mark.skipif(not SCORES, reason="the published results are not beside the checkout")


def scan_of(*names: str, **rest) -> Scan:
    modules = [
        ModuleScore(name=name, type=module_type(name), snr=float(100 - i), shape=(4, 4)) for i, name in enumerate(names)
    ]
    return Scan("m", "spectrum", tuple(modules), **rest)


@needs_published
def test_the_published_selection_byte_for_byte():
    assert write_selection(load_scan(LLAMA).select(50), "axolotl").encode() == LLAMA_YAML.read_bytes()
    assert reference_file_name("meta-llama/Meta-Llama-3.1-8B") == LLAMA.name


@needs_published
@pytest.mark.parametrize("path", SCORES, ids=lambda path: path.stem)
def test_the_published_scores_byte_for_byte(path):
    scan = load_scan(path)
    layout = "reference" if scan.provenance["layout"] == "flat" else "reference-sorted"
    assert write_scores(scan, layout).encode() == path.read_bytes()


@needs_published
def test_the_published_selection_is_read_back():
    read = load_selection(LLAMA_YAML)
    made = load_scan(LLAMA).select(50)
    assert read.names == made.names
    assert [(group.name, group.taken) for group in read.groups] == [(group.name, group.taken) for group in made.groups]
    assert write_selection(read, "axolotl").encode() == LLAMA_YAML.read_bytes()


def test_our_own_pair_byte_for_byte():
    scan = load_scan(DATA / "tiny_flat.json")
    assert write_scores(scan, "reference") == (DATA / "tiny_flat.json").read_text()
    assert write_scores(scan, "reference-sorted") == (DATA / "tiny_sorted.json").read_text()
    assert write_selection(scan.select(50), "axolotl") == (DATA / "tiny_50percent.yaml").read_text()
    twin = load_scan(DATA / "tiny_sorted.json")
    assert write_scores(twin, "reference-sorted") == (DATA / "tiny_sorted.json").read_text()
    assert write_selection(twin.select(50), "axolotl") == (DATA / "tiny_50percent.yaml").read_text()


def test_at_100_percent_the_head_is_named_in_its_group_too_as_in_the_reference():
    text = write_selection(load_scan(DATA / "tiny_flat.json").select(100), "axolotl")
    assert text.endswith("# model.norm layers\n- model.norm\n# lm_head layers\n- lm_head\n")
    assert text.startswith(
        "unfrozen_parameters:\n- ^lm_head.weight$\n- ^model.embed_tokens.weight$\n# mlp.gate layers\n"
    )


def test_below_100_percent_and_in_a_header_of_ones_own_no_group_names_it_again():
    scan = scan_of("lm_head", "model.layers.0.q")
    for selection in (scan.select(99), scan.select(100, always=["lm_head"])):
        assert [line for line in write_selection(selection, "axolotl").splitlines() if line == "- lm_head"] == []
    assert "\n- lm_head\n" in write_selection(scan.select(100), "axolotl")
    beside = scan_of("lm_head", "a.lm_head", "model.layers.0.q").select(100, grouping="global")
    assert "\n- lm_head\n" not in write_selection(beside, "axolotl")


def test_the_header_means_what_the_selection_says():
    scan = scan_of("model.language_model.embed_tokens", "model.language_model.layers.0.q", "lm_head")
    default = scan.select(50)
    assert write_selection(default, "axolotl").splitlines()[1:4] == [
        "- ^lm_head.weight$",
        "- ^model.embed_tokens.weight$",
        "- ^model.language_model.embed_tokens.weight$",
    ]
    assert any(
        "would miss model.language_model.embed_tokens" in line for line in export_warnings(default, scan, "axolotl")
    )
    none = write_selection(scan.select(50, always="none"), "axolotl")
    assert "^" not in none
    custom = write_selection(scan.select(50, always=["*.q"]), "axolotl")
    assert [line for line in custom.splitlines() if "^" in line] == ["- ^model.language_model.layers.0.q.weight$"]


def test_peft_and_plain_names():
    scan = load_scan(DATA / "tiny_flat.json")
    selection = scan.select(50)
    expected = ["model.layers.2.mlp.gate", "model.layers.10.mlp.gate_proj", "model.layers.0.mlp.gate_proj"]
    assert json.loads(write_selection(selection, "peft")) == expected
    assert write_selection(selection, "names") == "".join(f"{name}\n" for name in ["lm_head", *expected])
    assert "lm_head" in export_warnings(selection, scan, "peft")[0]


def test_peft_leaves_out_what_cannot_carry_an_adapter():
    matrix = ModuleScore(name="l.0.q", type="q", snr=1.0, shape=(4, 4))
    norm = ModuleScore(name="l.0.norm", type="norm", snr=1.0, shape=(4,))
    scan = Scan("m", "spectrum", (matrix, norm))
    assert json.loads(write_selection(scan.select(100), "peft")) == ["l.0.q"]
    assert "1 selected tensors are no matrices" in export_warnings(scan.select(100), scan, "peft")[0]
    with pytest.raises(SelectionError, match="expected at least one selected matrix"):
        write_selection(Scan("m", "spectrum", (norm,)).select(100), "peft")


@pytest.mark.parametrize("arguments", [{}, {"grouping": "global"}, {"always": "none"}, {"always": ["*.norm"]}])
def test_own_selection_round_trip(tmp_path, arguments):
    selection = load_scan(DATA / "tiny_flat.json").select(50, **arguments)
    selection = replace(selection, failed=("x",))
    selection.save(tmp_path / "selection.json")
    assert load_selection(tmp_path / "selection.json") == selection
    json.loads((tmp_path / "selection.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize("output_format", ["axolotl", "names", "peft"])
def test_lists_of_names_are_read_back(tmp_path, output_format):
    selection = load_scan(DATA / "tiny_flat.json").select(50)
    selection.save(tmp_path / "out", output_format)
    read = load_selection(tmp_path / "out")
    expected = set(selection.names)
    if output_format == "axolotl":
        expected |= {"model.embed_tokens"}  # the header that is always there
        assert set(read.always) == {"lm_head", "model.embed_tokens"}
        assert write_selection(read, "axolotl") == write_selection(selection, "axolotl")
    if output_format == "peft":
        expected -= {"lm_head"}
    assert set(read.names) == expected
    assert read.top_percent is None


def test_a_yaml_inside_an_axolotl_configuration():
    read = parse_selection(
        "base_model: x\n"
        "unfrozen_parameters:  # what to train\n"
        "  - ^lm_head\\.weight$\n"
        "\n"
        "  # mlp.up_proj layers\n"
        '  - "model.layers.1.mlp.up_proj"\n'
        "  - model\\.layers\\.2\\.mlp\\.up_proj.weight\n"
        "  # anything else\n"
        "learning_rate: 1e-5\n"
        "- not ours\n"
    )
    assert read.always == ("lm_head",)
    assert [module.name for module in read.modules] == ["model.layers.1.mlp.up_proj", "model.layers.2.mlp.up_proj"]
    assert [(group.name, group.taken) for group in read.groups] == [("mlp.up_proj", 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unfrozen_parameters: [a, b]\n", "line 1: expected one entry a line"),
        (
            "unfrozen_parameters:\n- model.layers.[01].q\n",
            "line 2: expected a module name, found 'model.layers.*row ranges",
        ),
        ("unfrozen_parameters:\n- ^model.embed_tokens.weight$[:32000]\n", "line 2: expected a module name"),
        ("unfrozen_parameters:\n  key: 1\n", "line 2: expected an entry '- name'"),
        ("a b\n", "line 1: expected a module name, found 'a b'"),
        ("# nothing\n\n", "expected module names, found none"),
        ("", "expected module names, found none"),
        ("[]", "expected module names, found none"),
        ("[1]", "entry 0: expected a module name, found 1"),
        ('["a b"]', "entry 0: expected a module name, found 'a b'"),
        ('["a"', "found at line 1, column"),
        ('{"schema": 1, "modules": []}', "found a scan; make a selection"),
        ('{"a": 1}', "found another JSON object"),
        ('{"kind": "selection", "schema": 3}', "field 'schema': expected 1, the only version .* found 3"),
        ('{"kind": "selection", "schema": 1}', "field 'model': expected a text or null, found nothing"),
    ],
)
def test_every_malformation_is_named(text, message):
    with pytest.raises(SelectionError, match=message) as caught:
        parse_selection(text, "s.txt")
    assert str(caught.value).startswith("s.txt")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["always"], ["a", 3], "field 'always': expected a list of names"),
        (["top_percent"], "25", "field 'top_percent': expected a finite number >= 0 or null, found \"25\""),
        (["modules", 0, "rank"], -1, r"modules\[0\] \(model.layers.2.mlp.gate\): field 'rank'"),
        (["modules", 0, "snr"], float("nan"), "field 'snr': .*found NaN"),
        (["modules", 0, "name"], "lm_head", "expected each module once, found 'lm_head' twice"),
        (["groups", 0, "undecided"], None, r"groups\[0\] \(mlp.gate\): field 'undecided': expected true or false"),
    ],
)
def test_broken_fields_of_our_own_selection_are_named(path, value, message):
    document = json.loads(write_selection(load_scan(DATA / "tiny_flat.json").select(50)))
    entry = document
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    with pytest.raises(SelectionError, match=message):
        parse_selection(json.dumps(document), "s.json")


def test_formats_and_their_sources():
    scan = load_scan(DATA / "tiny_flat.json")
    assert set(FORMATS) == set(SCAN_FORMATS) | set(SELECTION_FORMATS)
    with pytest.raises(UsageError, match="scores of a whole scan, found a selection"):
        write_selection(scan.select(50), "reference")
    with pytest.raises(UsageError, match="unknown format 'xml': expected one of json, axolotl, reference"):
        write_selection(scan.select(50), "xml")
    with pytest.raises(SelectionError, match="there is no folder"):
        scan.select(50).save(DATA / "none" / "x.yaml", "axolotl")
    with pytest.raises(SelectionError, match="cannot be read"):
        load_selection(DATA / "none.json")


def test_prefixes_that_train_more_than_they_say_are_named():
    scan = load_scan(DATA / "tiny_flat.json")
    warnings = export_warnings(scan.select(50), scan, "axolotl")
    assert [line for line in warnings if line.startswith("axolotl, which matches prefixes,")] == [
        "axolotl, which matches prefixes, also trains model.layers.2.mlp.gate_proj because of the entry "
        "model.layers.2.mlp.gate"
    ]
    assert any("always names model.embed_tokens, not scored here" in line for line in warnings)


def test_headers_of_a_scan_that_skipped_the_embeddings():
    skipped = (SkippedTensor("model.embed_tokens", "excluded"),)
    scan = scan_of("model.layers.0.q", "model.layers.1.q", "lm_head", skipped=skipped)
    assert any(
        "always names model.embed_tokens, not scored" in w for w in export_warnings(scan.select(50), scan, "axolotl")
    )
    tied = scan_of("model.embed_tokens", "model.layers.0.q", "model.layers.1.q")
    assert not any("not scored" in w for w in export_warnings(tied.select(50), tied, "axolotl"))


def test_warnings_about_empty_selections_and_failures():
    scan = scan_of("model.layers.0.q", "lm_head")
    assert "no module is selected" in export_warnings(scan.select(50), scan, "names")[0]
    failed = replace(scan, failures=(ScanFailure(name="x", kind="nan", message="y"),))
    assert "1 tensor without a score" in export_warnings(scan.select(100), failed, "reference")[0]


def test_every_reading_of_an_entry_against_brute_force():
    components = ["a", "b", "ab", "a_b", "1", "10", "gate", "gate_proj"]
    names = sorted({f"{x}.{y}.{z}" for x in components for y in components for z in components} | {"a", "b", "gate"})
    entries = names[::7]
    expected = {
        (entry, other)
        for entry in entries
        for other in names
        if other not in entries and (re.match(entry, other) or entry in other)
    }
    found = list(unintended_matches(entries, names))
    assert {(entry, other) for entry, other, _ in found} == expected
    for entry, other, reading in found:
        if reading == "axolotl":
            assert other.startswith(entry)
        elif reading == "unescaped dots":
            assert re.match(entry, other)
            assert not other.startswith(entry)
        else:
            assert entry in other
            assert not re.match(entry, other)
    assert {reading for _, _, reading in found} == {"axolotl", "unescaped dots", "substring"}


@pytest.mark.parametrize(
    "name",
    ["x: y.0.q", "model.0.q #", "- a.0.q", "a.0.[q]", "a.0.q+", "a.0.q\ntrust_remote_code: true", "a.0.q\0", "*"],
)
@pytest.mark.parametrize("output_format", ["axolotl", "names", "peft"])
def test_a_name_that_a_reader_would_take_for_something_else_is_not_written(tmp_path, name, output_format):
    entry = SelectedModule(name=name, type="q", group="q", shape=(4, 4))
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(SelectionError, match=f"format '{output_format}' cannot hold this: read back, "):
        Selection(modules=(entry,), always_rule="none").save(target, output_format)
    assert target.read_text() == "old"


@pytest.mark.parametrize("name", ["1", "null", "1.5", "yes", "0x1f", ".", "é.0.q"])
def test_a_name_that_yaml_knows_otherwise_is_quoted(name):
    module = SelectedModule(name=name, type="q", group="q")
    text = write_selection(Selection(modules=(module,), always_rule="none"), "axolotl")
    assert yaml.safe_load(text) == {"unfrozen_parameters": [name]}
    assert parse_selection(text).names == (name,)


def test_a_group_s_name_cannot_leave_its_comment():
    module = SelectedModule(name="a.0.q", type="q", group="q")
    named = SelectionGroup(name="q", taken=1)
    hostile = SelectionGroup(name="z\nplugins: [evil]\n#", taken=0)
    for groups, problem in (((named, hostile), "'plugins' is not what it was"), ((hostile, named), "expected YAML")):
        with pytest.raises(SelectionError, match=problem):
            write_selection(Selection(modules=(module,), groups=groups, always_rule="none"), "axolotl")
