"""What each reader would train, told before the training; and the model without weights that it is told on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.make_checkpoint import write_checkpoint
from spectrum_fast import load_selection, scan
from spectrum_fast.choose.selection.export.check import READERS, check_selection
from spectrum_fast.choose.selection.export.mend import mend_selection
from spectrum_fast.choose.selection.model.skeleton import module_of_tensors, read_skeleton
from spectrum_fast.choose.selection.readers.axolotl import read_as_axolotl
from spectrum_fast.choose.selection.readers.peft import read_as_peft
from spectrum_fast.choose.selection.readers.scripts import read_as_line_parser, read_as_readme
from spectrum_fast.errors import CheckpointError, SelectionError, UsageError

from support.architectures import build


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose head is tied: the running model has no parameter lm_head.weight."""
    return write_checkpoint(tmp_path_factory.mktemp("check"), like="tiny", layers=4).path


@pytest.fixture(scope="module")
def yaml_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "unfrozen.yaml"
    scan(checkpoint).select(50).save(path, "axolotl")
    return path


def save_names(path: Path, *names: str) -> Path:
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def test_the_default_header_is_read_in_two_ways(checkpoint: Path, yaml_file: Path) -> None:
    result = check_selection(yaml_file, str(checkpoint))
    assert [report.reader for report in result.reports] == list(READERS)
    by_name = {report.reader: report for report in result.reports}
    assert [name for name in READERS if by_name[name].agrees] == ["spectrum-fast", "axolotl", "line-parser", "peft"]
    assert by_name["readme"].missing == ("model.embed_tokens.weight",)
    assert by_name["axolotl"].reading.unmatched == ("^lm_head.weight$",)
    assert not result.agree
    assert result.note == ""
    total = sum(parameter.numel() for parameter in read_skeleton(str(checkpoint)).module.parameters())
    assert result.total_values == total
    assert by_name["axolotl"].share == by_name["axolotl"].values / total
    assert by_name["axolotl"].values == by_name["readme"].values + 256 * 64


def test_an_entry_that_is_a_prefix_of_another_module(tmp_path: Path) -> None:
    tensors = {f"model.layers.{i}.mlp.{leaf}.weight": torch.ones(4, 4) for i in (1, 11) for leaf in ("gate", "gate_up")}
    tensors |= {"xmodel.layers.1.mlp.gate.weight": torch.ones(4, 4), "modelXlayers.1.mlp.gate.weight": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "model.safetensors")
    path = save_names(tmp_path / "names.txt", "model.layers.1.mlp.gate")
    result = check_selection(path, str(tmp_path / "model.safetensors"))
    extra = {report.reader: report.extra for report in result.reports}
    prefixed = "model.layers.1.mlp.gate_up.weight"
    assert extra["spectrum-fast"] == ()
    assert extra["axolotl"] == (prefixed,)
    assert set(extra["line-parser"]) == {prefixed, "modelXlayers.1.mlp.gate.weight"}
    assert set(extra["readme"]) == {prefixed, "xmodel.layers.1.mlp.gate.weight"}
    assert extra["peft"] == ()
    assert result.note == "names are those of the checkpoint's files: there is no config.json"


def test_rows_that_only_axolotl_sees(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text("unfrozen_parameters:\n- ^model.embed_tokens.weight$[:3]\n- model.layers.0.mlp.up_proj\n")
    by_name = {report.reader: report for report in check_selection(path, str(checkpoint)).reports}
    assert by_name["axolotl"].agrees
    assert by_name["axolotl"].values == 3 * 64 + 176 * 64
    assert by_name["line-parser"].missing == ("model.embed_tokens.weight",)
    assert "cannot be read back as a selection" in by_name["spectrum-fast"].reading.problem
    assert not by_name["spectrum-fast"].agrees
    path.write_text("unfrozen_parameters:\n- ^model.embed_tokens.weight$[:999]\n")
    (axolotl,) = check_selection(path, str(checkpoint), readers=["axolotl"]).reports
    wrong = "invalid range of rows in '^model.embed_tokens.weight$[:999]': the parameter has 256"
    assert axolotl.reading.problem == wrong


def test_experts_that_the_running_model_fuses(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = write_checkpoint(tmp_path / "moe", like="mixtral-8x7b", layers=1, scale=32, embeddings=False).path
    experts = sorted(module.name for module in scan(model).modules if ".experts." in module.name)
    path = save_names(tmp_path / "names.txt", *experts[:2], "model.layers.0.self_attn.q_proj")
    result = check_selection(path, str(model), readers=["axolotl"])
    (axolotl,) = result.reports
    assert result.note == ""
    assert axolotl.reading.unmatched == tuple(experts[:2])
    assert axolotl.parameters == ("model.layers.0.self_attn.q_proj.weight",)
    (axolotl,) = check_selection(path, str(model), readers=["axolotl"], names="checkpoint").reports
    assert axolotl.reading.unmatched == ()
    assert len(axolotl.parameters) == 3


def test_codes_cannot_be_trained_but_can_carry_adapters(tmp_path: Path) -> None:
    codes = torch.ones(4, 4, dtype=torch.uint8)
    save_file({"model.layers.0.up_proj.weight": codes}, tmp_path / "model.safetensors")
    path = save_names(tmp_path / "names.txt", "model.layers.0.up_proj")
    by_name = {report.reader: report for report in check_selection(path, str(tmp_path)).reports}
    assert "cannot have a gradient" in by_name["spectrum-fast"].reading.problem
    assert by_name["peft"].parameters == ("model.layers.0.up_proj.weight",)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "unheard_of", "auto_map": {"AutoModel": "x.Y"}}, "does not know model_type 'unheard_of'"),
        ({"model_type": "llama", "hidden_size": "many"}, "transformers cannot build llama: "),
    ],
)
def test_a_model_that_cannot_be_built_falls_back_to_its_files(tmp_path: Path, config: dict, reason: str) -> None:
    pytest.importorskip("transformers")
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    skeleton = read_skeleton(str(tmp_path))
    assert [*dict(skeleton.module.named_parameters())] == ["a.weight"]
    assert reason in skeleton.note
    with pytest.raises(CheckpointError, match="the running model cannot be built"):
        read_skeleton(str(tmp_path), "runtime")


def test_a_skeleton_holds_no_weights(checkpoint: Path) -> None:
    for names in ("runtime", "checkpoint"):
        assert all(parameter.is_meta for parameter in read_skeleton(str(checkpoint), names).module.parameters())
    with pytest.raises(CheckpointError, match=r"tensor 'a\.b\.c'"):
        module_of_tensors([("a.b", (1,), "F32"), ("a.b.c", (1,), "F32")])


def test_bad_input(checkpoint: Path, yaml_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown reader 'unsloth': expected some of spectrum-fast, axolotl"):
        check_selection(yaml_file, str(checkpoint), readers=["unsloth"])
    with pytest.raises(UsageError, match="unknown names 'mine'"):
        check_selection(yaml_file, str(checkpoint), names="mine")
    bad = tmp_path / "bad.yaml"
    for text in ("unfrozen_parameters:\n- [1\n", "unfrozen_parameters:\n  a: 1\n"):
        bad.write_text(text)
        with pytest.raises(SelectionError, match=r"bad\.yaml"):
            check_selection(bad, str(checkpoint))
    with pytest.raises(SelectionError, match=r"missing\.yaml: cannot be read"):
        check_selection(tmp_path / "missing.yaml", str(checkpoint))


def test_a_large_model_is_checked_in_seconds() -> None:
    """Names of a DeepSeek: 45,000 parameters and 11,000 entries through the four name readers."""
    shapes = {
        f"model.layers.{i}.mlp.experts.{e}.{leaf}.weight": (2, 2)
        for i in range(58)
        for e in range(256)
        for leaf in ("gate_proj", "up_proj", "down_proj")
    }
    entries = [name.removesuffix(".weight") for name in list(shapes)[::4]]
    for read in (read_as_axolotl, read_as_line_parser, read_as_readme, read_as_peft):
        assert len(read(entries, shapes).parameters) == len(entries)


def test_names_that_match_nothing_are_no_agreement(checkpoint: Path, tmp_path: Path) -> None:
    path = save_names(tmp_path / "names.txt", "model.layers.0.mlp.up_prj", "model.layers.1.mlp.up_proj")
    result = check_selection(path, str(checkpoint), readers=["spectrum-fast"])
    assert [*result.lost] == ["model.layers.0.mlp.up_prj"]
    assert "model.layers.0.mlp.up_proj" in result.lost["model.layers.0.mlp.up_prj"]
    assert not result.agree
    nothing = check_selection(save_names(path, "a.b", "c.d"), str(checkpoint), readers=["axolotl"])
    assert (nothing.agree, [*nothing.lost]) == (False, ["a.b", "c.d"])
    assert check_selection(save_names(path, "model.layers.1.mlp.up_proj"), str(checkpoint)).agree


@pytest.mark.parametrize("output_format", ["json", "axolotl", "names"])
def test_a_file_is_mended_in_its_own_format(checkpoint: Path, tmp_path: Path, output_format: str) -> None:
    skeleton = read_skeleton(str(checkpoint))
    path = tmp_path / "file"
    scan(checkpoint).select(50, grouping="global").save(path, output_format)
    whole = load_selection(path)
    right = next(module.name for module in whole.modules if module.name.endswith("_proj"))
    wrong = right.removesuffix("oj") + "j"
    path.write_text(path.read_text().replace(right, wrong))
    mended = mend_selection(path.read_text(), "file", skeleton)
    assert mended.replaced == {wrong: right}
    assert mended.dropped == (("lm_head",) if output_format == "axolotl" and "lm_head" not in whole.names else ())
    path.write_text(mended.text)
    again = load_selection(path)
    assert {name.removesuffix(".weight") for name in again.names} >= {module.name for module in whole.modules}
    assert check_selection(path, str(checkpoint), readers=["spectrum-fast", "axolotl"]).agree


def test_what_is_not_near_is_not_guessed(checkpoint: Path, tmp_path: Path) -> None:
    skeleton = read_skeleton(str(checkpoint))
    for wrong in ("model.layers.9.mlp.up_proj", "model.layers.1.mlp.something"):
        with pytest.raises(SelectionError, match=rf"s: {wrong} matches nothing .* correct it or take it out"):
            mend_selection(f"{wrong}\nmodel.layers.1.mlp.up_proj\n", "s", skeleton)


def test_names_of_the_checkpoint_become_those_of_the_running_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    build("gemma-3").save_pretrained(tmp_path / "gemma")
    selection = scan(tmp_path / "gemma", top_percent=None).select(50)
    path = tmp_path / "unfrozen.yaml"
    selection.save(path, "axolotl")
    mended = mend_selection(path.read_text(), "s", read_skeleton(str(tmp_path / "gemma")))
    path.write_text(mended.text)
    (axolotl,) = check_selection(path, str(tmp_path / "gemma"), readers=["axolotl"]).reports
    assert axolotl.agrees
    assert len(axolotl.parameters) >= len(selection.modules)
