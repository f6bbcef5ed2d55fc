"""The rules of ``selection/readers/`` against the code of axolotl, its Spectrum plugin, PEFT and LLaMA-Factory.

axolotl and LLaMA-Factory are installed by ``make setup`` without their dependencies; where they are missing these tests
skip, and the rules stand on their documentation alone. torchtune has no place for a list of names in its
configuration; its rule (``requires_grad_(name in names)``) is tested as documented.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.make_checkpoint import write_checkpoint
from spectrum_fast import Scan, load_scan, load_selection, scan
from spectrum_fast.choose.library.file_names import reference_file_name
from spectrum_fast.choose.selection.export.check import check_selection
from spectrum_fast.choose.selection.formats import write_scores, write_selection
from spectrum_fast.choose.selection.model.skeleton import module_of_tensors, read_skeleton
from spectrum_fast.choose.selection.readers.axolotl import read_as_axolotl
from spectrum_fast.choose.selection.readers.scripts import lines_of_yaml, read_as_line_parser, read_as_readme

MATRIX = ((4, 6), "F32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("reader"), like="tiny", layers=6).path


@pytest.fixture(scope="module")
def scanned(checkpoint: Path) -> Scan:
    return scan(checkpoint)


def mixed_model() -> nn.Module:
    """Names that trap prefixes, dots and substrings; biases, a norm, experts, wrappers."""
    names = [f"model.layers.{i}.mlp.{leaf}.weight" for i in range(12) for leaf in ("gate", "gate_proj", "gateXproj")]
    names += [f"model.layers.{i}.self_attn.q_proj.{leaf}" for i in range(12) for leaf in ("weight", "bias")]
    names += [f"model.layers.{i}.mlp.experts.{e}.w1.weight" for i in range(3) for e in range(11)]
    names += [f"_orig_mod.model.layers.{i}.mlp.gate.weight" for i in range(2)]
    names += ["model.embed_tokens.weight", "lm_head.weight", "vision.model.layers.1.mlp.gate.weight", "modelXlayers.w"]
    return module_of_tensors((name, *MATRIX) for name in names)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


ENTRIES = [
    "^lm_head.weight$",
    "^model.embed_tokens.weight$",
    "^model.embed_tokens.weight$[:2]",
    "model.layers.1.mlp.gate",
    "model.layers.1.mlp.gate.weight",
    "model.layers.1.mlp.gate_proj",
    "model.layers.2",
    "model.layers.[0-3].self_attn.q_proj",
    "model.layers.1.+gate",
    "layers.4",
    "lm_head",
    "model.layers.1.mlp.experts.1",
    "model.layers.(0|2).mlp.experts.[0-9]+.w1",
    "model.layers.3.mlp.gate.weight[1]",
    "model.layers.3.mlp.gate.weight[1:3]",
    "model.layers.3.mlp.gate.weight[:1]",
    "nothing.at.all",
]


@pytest.mark.parametrize("seed", range(12))
def test_axolotl_freezes_what_our_rule_says(seed: int) -> None:
    freeze = pytest.importorskip("axolotl.utils.freeze").freeze_layers_except
    entries = random.Random(seed).sample(ENTRIES, 4)  # noqa: S311
    module = mixed_model()
    freeze(module, entries)
    reading = read_as_axolotl(entries, shapes_of(module))
    assert reading.parameters == trained(module)
    assert reading.entries - len(reading.unmatched) == sum(
        any(pattern.match(name) for name, _ in module.named_parameters())
        for pattern in map(sys.modules["axolotl.utils.freeze"].LayerNamePattern, entries)
    )


def test_axolotl_trains_as_many_rows_as_our_rule_says() -> None:
    freeze = pytest.importorskip("axolotl.utils.freeze").freeze_layers_except
    model = nn.ModuleDict({"emb": nn.Embedding(7, 3), "out": nn.Linear(3, 5, bias=False)})
    entries = ["emb.weight[1:3]", "emb.weight[2:5]", "out", "out.weight[0]"]
    freeze(model, entries)
    ((model["emb"].weight ** 2).sum() + (model["out"].weight ** 2).sum()).backward()
    reading = read_as_axolotl(entries, shapes_of(model))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad.any(1), reading.kept[name].flatten())
    with pytest.raises(ValueError, match="invalid unfreeze range"):
        freeze(model, ["emb.weight[5:9]"])
    assert "the parameter has 7" in read_as_axolotl(["emb.weight[5:9]"], shapes_of(model)).problem


@pytest.mark.parametrize("percent", [25, 50])
def test_our_yaml_through_axolotls_freezing(checkpoint: Path, scanned: Scan, percent: int, tmp_path: Path) -> None:
    freeze = pytest.importorskip("axolotl.utils.freeze").freeze_layers_except
    import yaml

    selection = scanned.select(percent)
    path = tmp_path / "unfrozen.yaml"
    selection.save(path, "axolotl")
    ours, theirs = read_skeleton(str(checkpoint)).module, read_skeleton(str(checkpoint)).module
    selection.apply(ours)
    freeze(theirs, yaml.safe_load(path.read_text())["unfrozen_parameters"])
    assert trained(ours) == trained(theirs)
    (report,) = check_selection(path, str(checkpoint), readers=["axolotl"]).reports
    assert report.agrees
    assert set(report.parameters) == trained(theirs)


@pytest.mark.parametrize("percent", [25, 50])
def test_our_scores_through_axolotls_spectrum_plugin(
    checkpoint: Path, scanned: Scan, percent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = pytest.importorskip("axolotl.integrations.spectrum")
    freeze = pytest.importorskip("axolotl.utils.freeze").freeze_layers_except
    folder = tmp_path / "model_snr_results"
    folder.mkdir()
    (folder / reference_file_name("org/my_model")).write_text(write_scores(scanned))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugin.requests, "get", lambda *_, **__: pytest.fail("the plugin did not find the local file"))
    config = {"base_model": "org/my_model", "spectrum_top_fraction": percent / 100}
    plugin.SpectrumPlugin().pre_model_load(config)
    ours, theirs = read_skeleton(str(checkpoint)).module, read_skeleton(str(checkpoint)).module
    freeze(theirs, config["unfrozen_parameters"])
    scanned.select(percent).apply(ours)
    assert trained(ours) == trained(theirs)
    written = [line[2:] for line in write_selection(scanned.select(percent), "axolotl").splitlines() if line[0] == "-"]
    assert config["unfrozen_parameters"] == written


@pytest.mark.parametrize("seed", range(12))
def test_line_parsers_and_the_readme_snippet(seed: int) -> None:
    """The scripts are a few lines; their rule is written out here once more, without an index."""
    entries = random.Random(seed).sample([entry for entry in ENTRIES if "[" not in entry], 4)  # noqa: S311
    text = "unfrozen_parameters:\n" + "".join(f"- {entry}\n" for entry in entries) + "  - indented.is.not.seen\n"
    shapes = shapes_of(mixed_model())
    assert lines_of_yaml(text) == entries
    assert read_as_line_parser(entries, shapes).parameters == {
        name for name in shapes if any(re.match(entry, name) for entry in entries)
    }
    assert read_as_readme(entries, shapes).parameters == {
        name for name in shapes if any(entry in name for entry in entries)
    }


def test_peft_hangs_adapters_where_our_rule_says(checkpoint: Path, scanned: Scan, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    path = tmp_path / "targets.json"
    scanned.select(25).save(path, "peft")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=json.loads(path.read_text())))
    adapted = {
        name.removeprefix("base_model.model.").replace(".base_layer", "")
        for name, _ in wrapped.named_parameters()
        if name.endswith("base_layer.weight")
    }
    (report,) = check_selection(path, str(checkpoint), readers=["peft"]).reports
    assert set(report.parameters) == adapted
    assert report.agrees
    assert len(adapted) == 7


def test_llama_factory_reads_our_names_as_lora_target(checkpoint: Path, scanned: Scan) -> None:
    """Its ``lora_target`` is split at commas and handed to PEFT; ``freeze`` tuning can only name whole layers."""
    arguments = _llama_factory_arguments()
    names = write_selection(scanned.select(25, always="none"), "names").split()
    parsed = arguments.FinetuningArguments(finetuning_type="lora", lora_target=",".join(names))
    assert parsed.lora_target == names
    model = read_skeleton(str(checkpoint)).module
    peft = pytest.importorskip("peft")
    targets = [name for name, _ in model.named_modules() if _is_target(peft, parsed.lora_target, name)]
    assert sorted(targets) == sorted(names)


def _is_target(peft: types.ModuleType, targets: list[str], name: str) -> bool:
    from peft.tuners.tuners_utils import check_target_module_exists

    return bool(check_target_module_exists(peft.LoraConfig(target_modules=targets), name))


def _llama_factory_arguments() -> types.ModuleType:
    """The real file with the arguments, without the package around it, which needs a web interface to import."""
    package = importlib.util.find_spec("llamafactory")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llamafactory is not installed")
    path = Path(package.submodule_search_locations[0]) / "hparams" / "finetuning_args.py"
    spec = importlib.util.spec_from_file_location("llamafactory_finetuning_args", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_torchtune_takes_a_set_of_parameter_names(checkpoint: Path, scanned: Scan) -> None:
    """Its documented rule is ``parameter.requires_grad_(name in names)``; our full parameter names are such a set."""
    selection = scanned.select(25)
    ours, theirs = read_skeleton(str(checkpoint)).module, read_skeleton(str(checkpoint)).module
    selection.apply(ours)
    names = {f"{name}.weight" for name in selection.names}
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(name in names)
    assert trained(ours) == trained(theirs)


def test_every_export_reads_back_as_the_same_modules(scanned: Scan, tmp_path: Path) -> None:
    selection = scanned.select(50)
    for output_format in ("json", "axolotl", "peft", "names"):
        selection.save(tmp_path / output_format, output_format)
        again = load_selection(tmp_path / output_format)
        assert {module.name for module in selection.modules} <= set(again.names)
    (tmp_path / "scores.json").write_text(write_scores(scanned))
    assert load_scan(tmp_path / "scores.json").select(50).modules == tuple(
        type(module)(**{**vars(module), "parameter": None, "shape": None}) for module in selection.modules
    )
