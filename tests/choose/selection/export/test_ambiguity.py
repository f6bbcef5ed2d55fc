"""What a user is told about an exported file, warning by warning; the readings themselves are in test_formats.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spectrum_fast.choose.selection.export.ambiguity import export_warnings
from spectrum_fast.choose.selection.formats import FORMATS
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure, SkippedTensor
from spectrum_fast.read.checkpoint.naming import module_type

HEAD, EMBEDDINGS = "lm_head", "model.embed_tokens"


def scan_of(*names: str, **rest) -> Scan:
    modules = [
        ModuleScore(name=name, type=module_type(name), snr=float(100 - i), shape=(4, 4)) for i, name in enumerate(names)
    ]
    return Scan("m", "spectrum", tuple(modules), **rest)


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_empty_selection_is_said_beside_everything_else(output_format):
    scan = scan_of("model.layers.0.q", HEAD, EMBEDDINGS)
    warnings = export_warnings(scan.select(50), scan, output_format)
    assert warnings[0].startswith("no module is selected beside those trained always: every group is too small")
    assert len(warnings) == (2 if output_format == "peft" else 1)


@pytest.mark.parametrize("output_format", FORMATS)
def test_only_the_references_layouts_lose_failures(output_format):
    scan = replace(scan_of("model.layers.0.q"), failures=(ScanFailure(name="x", kind="nan", message="y"),))
    selection = scan_of("model.layers.0.q").select(100)
    lost = [text for text in export_warnings(selection, scan, output_format) if "without a score" in text]
    assert lost == (
        ["1 tensor without a score is left out: the layout has no place for them"]
        if output_format.startswith("reference")
        else []
    )
    whole = replace(scan, failures=())
    assert not any("without a score" in text for text in export_warnings(selection, whole, output_format))


def test_header_lines_that_some_scripts_do_not_see_are_listed_where_they_are_not_the_references():
    scan = scan_of("model.layers.0.q", HEAD, EMBEDDINGS)
    assert export_warnings(scan.select(100), scan, "axolotl") == []
    scan = scan_of("model.layers.0.q", HEAD, "a.embed_tokens")
    text = export_warnings(scan.select(100), scan, "axolotl")[0]
    assert "the reference's README) do not see the lines ^lm_head.weight$, ^model.embed_tokens.weight$, ^a.emb" in text
    assert text.endswith("axolotl trains them")


def test_embeddings_of_other_names_get_lines_and_the_references_are_not_there():
    scan = scan_of("a.embed_tokens", "b.wte", "model.layers.0.q")
    skipped = replace(scan, skipped=(SkippedTensor(HEAD, "x"), SkippedTensor(EMBEDDINGS, "x")))
    _, extra, unknown = export_warnings(scan.select(100), skipped, "axolotl")
    assert extra == "the reference's header would miss a.embed_tokens, b.wte; lines for them are added"
    assert unknown.startswith("the header always names lm_head, model.embed_tokens, not scored here; axolotl trains")


def test_a_header_of_ones_own_is_no_addition_to_the_references():
    scan = scan_of("a.embed_tokens", "model.layers.0.q")
    selection = scan.select(100, always=["a.embed_tokens"])
    assert selection.always_rule == "custom"
    (text,) = export_warnings(selection, scan, "axolotl")
    assert "do not see the lines ^a.embed_tokens.weight$" in text


def test_entries_that_free_the_same_types_are_counted_in_one_warning():
    gates = [f"model.layers.{i}.mlp.gate" for i in range(3)]
    others = [f"model.layers.{i}.mlp.gate_proj" for i in range(3)]
    scan = scan_of(*gates, *others)
    for count in (1, 2, 3):
        selection = scan.select(100, include=gates[:count])
        *_, text = export_warnings(selection, scan, "axolotl")
        pair = f"axolotl, which matches prefixes, also trains {others[0]} because of the entry {gates[0]}"
        assert text == pair + (f" ({count} such pairs of mlp.gate and mlp.gate_proj)" if count > 1 else "")


def test_peft_is_told_what_else_to_train():
    scan = scan_of("model.layers.0.q", HEAD, EMBEDDINGS)
    (text,) = export_warnings(scan.select(100), scan, "peft")
    assert text.startswith("lm_head, model.embed_tokens are not in the list: name them in PEFT's modules_to_save")
    assert export_warnings(scan.select(100, always="none"), scan, "peft") == []
