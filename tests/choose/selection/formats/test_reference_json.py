"""Published results in both layouts: the real ones where they are at hand, and every way to be broken."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spectrum_fast.choose.selection.formats.reference_json import slug_of_file
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.choose.selection.scan_result import load_scan, parse_scan
from spectrum_fast.errors import ScanFileError

PUBLISHED = Path(__file__).parents[4] / ".." / "shared" / "data" / "published_snr"
FILES = sorted(PUBLISHED.glob("*.json"))
EMPTY = "snr_results_deepseek-ai-DeepSeek-V3.1-Base.json"
TINY = Path(__file__).parent / "data"

needs_published = pytest.mark.skipif(not FILES, reason="the published results are not beside the checkout")


@needs_published
@pytest.mark.parametrize("path", [path for path in FILES if path.name != EMPTY], ids=lambda path: path.stem)
def test_every_published_file_is_read_completely(path):
    scan = load_scan(path)
    document = json.loads(path.read_text())
    if scan.provenance["layout"] == "flat":
        expected = {name: (entry["type"], entry["snr"]) for name, entry in document.items()}
    else:
        expected = {name: (type_, snr) for type_, group in document.items() for name, snr in group.items()}
    assert {module.name: (module.type, module.rank_value) for module in scan.modules} == expected
    assert [module.name for module in scan.modules] == list(expected)
    assert scan.complete
    assert scan.published
    assert all(module.noise_free == (module.snr is None) for module in scan.modules)
    assert f"snr_results_{scan.model}.json" == path.name
    assert parse_scan(format_scan(scan)) == scan


@needs_published
def test_the_file_that_holds_only_a_line_break_is_refused():
    with pytest.raises(ScanFileError, match=r"DeepSeek-V3\.1-Base\.json: expected JSON, found an empty file"):
        load_scan(PUBLISHED / EMPTY)


def test_both_layouts_hold_the_same_scores():
    flat, twin = load_scan(TINY / "tiny_flat.json"), load_scan(TINY / "tiny_sorted.json")
    assert {module.name: module for module in flat.modules} == {module.name: module for module in twin.modules}
    assert (flat.provenance["layout"], twin.provenance["layout"]) == ("flat", "sorted")
    assert [module.name for module in flat.modules if module.noise_free] == [
        "model.layers.2.mlp.gate",
        "model.layers.10.mlp.gate",
    ]


@pytest.mark.parametrize(
    "document",
    ['{"a.0.b": {"snr": NaN, "type": "b"}, "c": {"snr": 1, "type": "c"}}', '{"b": {"a.0.b": NaN}, "c": {"c": 1}}'],
)
def test_nan_is_a_failure_and_never_a_number(document):
    scan = parse_scan(document, "snr_results_m.json")
    assert [(failure.name, failure.kind) for failure in scan.failures] == [("a.0.b", "nan")]
    assert [module.name for module in scan.modules] == ["c"]
    assert not scan.complete
    assert all(not math.isnan(module.rank_value) for module in scan.modules)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{}", r"expected an object of scores, found \{\}"),
        ('{"a": {}, "b": {}}', "found only empty groups"),
        ('{"a": {"snr": 1}}', "module 'a': field 'type': expected a text, found nothing"),
        ('{"a": {"type": "a"}}', "module 'a': field 'snr': expected a number >= 0, found nothing"),
        ('{"a": {"snr": 1, "type": 3}}', "module 'a': field 'type': expected a text, found 3"),
        ('{"a": {"snr": null, "type": "a"}}', "module 'a': field 'snr': expected a number >= 0, found null"),
        ('{"a": {"snr": "1", "type": "a"}}', 'expected a number >= 0, found "1"'),
        ('{"a": {"snr": true, "type": "a"}}', "expected a number >= 0, found true"),
        ('{"a": {"snr": -1, "type": "a"}}', "expected a number >= 0, found -1"),
        ('{"a": {"snr": -Infinity, "type": "a"}}', "expected a number >= 0, found -Infinity"),
        ('{"a": {"snr": 1, "type": "a"}, "b": 3}', "field 'b': expected an object with 'snr' and 'type', found 3"),
        ('{"a": {"snr": 1, "type": "a"}, "a": {"snr": 1, "type": "a"}}', "found 'a' twice"),
        ('{"t": {"a": 1}, "u": {"a": 2}}', "found 'a' twice"),
        ('{"t": {"a": [1]}}', r"type 't': field 'a': expected a number >= 0, found \[1\]"),
        ('{"t": 3}', "field 't': expected a scan of this package"),
        ('{"t": {"a": 1}, "u": [1, 2]}', r"field 'u': .*found \[1, 2\]"),
        ('{"t": {"": 3}}', "expected names, found an empty one"),
        ("3", "expected an object of scores, found 3"),
        ('{"t": {"a": 1' + "0" * 400 + "}}", "expected a number >= 0, found 1000"),
    ],
)
def test_every_malformation_is_named(document, message):
    with pytest.raises(ScanFileError, match=message) as caught:
        parse_scan(document, "p.json")
    assert str(caught.value).startswith("p.json: ")


def test_what_a_published_file_says_about_its_scan():
    scan = parse_scan(
        '{"l.0.b": {"snr": 0, "type": "b"}, "l.1.b": {"snr": NaN, "type": "b"}}', "x/snr_results_a-b.json"
    )
    assert (scan.model, scan.criterion) == ("a-b", "spectrum")
    assert dict(scan.provenance) == {"source": "published", "layout": "flat", "file": "snr_results_a-b.json"}
    (module,) = scan.modules
    assert (module.name, module.type, module.snr, module.noise_free) == ("l.0.b", "b", 0.0, False)
    (failure,) = scan.failures
    assert failure.message == "the published score is NaN"
    assert scan.published


@pytest.mark.parametrize(
    "document", ['{"a": {"snr": 1, "type": ""}}', '{"": {"l.0.a": 1}}', '{"t": {"l.0.a": 1}, "": {"l.1.a": 1}}']
)
def test_an_empty_type_is_refused(document):
    with pytest.raises(ScanFileError, match=r"^p\.json: module '.*a' of type '': expected names, found an empty one$"):
        parse_scan(document, "p.json")


@pytest.mark.parametrize(
    ("document", "layout"),
    [
        ('{"a": {"snr": 1, "type": "a"}}', "flat"),
        ('{"type": {"type": 1}}', "sorted"),
        ('{"a": {}, "b": {"c": 2}}', "sorted"),
    ],
)
def test_the_layout_is_told_by_the_first_entry(document, layout):
    assert parse_scan(document).provenance["layout"] == layout


def test_errors_of_a_file_name_its_path(tmp_path):
    path = tmp_path / "snr_results_a.json"
    path.write_text('{"a": {"snr": -1, "type": "a"}}')
    with pytest.raises(ScanFileError) as caught:
        load_scan(path)
    assert str(caught.value) == f"{path}: module 'a': field 'snr': expected a number >= 0, found -1"
    path.write_text('{"a": {"snr": 1, "type": "a"}}')
    assert load_scan(path).model == "a"


def test_slug_of_a_file():
    assert slug_of_file("x/snr_results_Qwen-Qwen2-7B.json") == "Qwen-Qwen2-7B"
    assert slug_of_file("snr_results_a-b_sorted.json") == "a-b"
    assert slug_of_file("other.json") == "other"
    assert slug_of_file("my_snr_results_x.json") == "my_snr_results_x"
    assert slug_of_file("snr_results_.json") == "snr_results_"
