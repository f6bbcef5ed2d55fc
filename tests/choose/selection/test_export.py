"""What is selected is what is trained: every reader, by its own code where it installs, on tiny models of eight kinds.

The truth is found by values: the parameters of the loaded model that hold the numbers of the checkpoint's selected
tensors. Nothing of how names are resolved goes into it.
"""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import spectrum_fast as sf
from spectrum_fast.choose.selection.export import export_selection
from spectrum_fast.choose.selection.model_skeleton import read_skeleton, skeleton_of_scan
from spectrum_fast.choose.selection.options import SelectOptions
from spectrum_fast.choose.selection.readers import READERS
from spectrum_fast.errors import SelectionError, UsageError

from support.architectures import ARCHITECTURES, build

QUICK = ("mixtral", "gemma-3")


@dataclass
class Case:
    """A checkpoint, its scan, and the live model that transformers makes of it."""

    name: str
    scan: sf.Scan
    model: nn.Module
    tensors: dict[str, torch.Tensor]

    def holders(self, module: str) -> set[str]:
        """Parameters of the live model that hold what the checkpoint stores for a module, or that have its name."""
        live = dict(self.model.named_parameters())
        bare = {name for name in live if name in (module, f"{module}.weight", f"{module}.bias")}
        stored = [self.tensors[key] for key in (module, f"{module}.weight", f"{module}.bias") if key in self.tensors]
        held = {name for name, value in live.items() if any(_holds(value, tensor) for tensor in stored)}
        return held or bare


def _holds(parameter: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor, which no other tensor has, lie in the parameter."""
    ends = tensor.flatten()[[0, -1]]
    return parameter.numel() >= tensor.numel() and bool(torch.isin(ends, parameter.detach()).all())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("transformers")
    made: dict[str, Case] = {}

    def make(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp("export") / name
            model = build(name)
            model.save_pretrained(folder)
            tensors = load_file(folder / "model.safetensors")
            made[name] = Case(name, sf.scan(folder, top_percent=None), type(model).from_pretrained(folder), tensors)
        return made[name]

    return make


def freed(model: nn.Module, is_free: Any) -> set[str]:
    return {name for name, _ in model.named_parameters() if is_free(name)}


def train_as(reader: str, text: str, model: nn.Module) -> set[str]:
    """What a reader does with its file: its own code, or its rule written out plainly."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if reader == "axolotl":
        pytest.importorskip("axolotl.utils.freeze").freeze_layers_except(
            model, yaml.safe_load(text)["unfrozen_parameters"]
        )
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if reader in ("trl", "names"):
        path = Path(text)
        sf.load_selection(path).apply(model)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if reader == "ms-swift":
        return freed(model, lambda name: any(name.startswith(entry) for entry in text.split()))
    if reader == "soup":
        entries = yaml.safe_load(text)["training"]["unfrozen_parameters"]
        return freed(model, lambda name: any(re.search(entry, name) for entry in entries))
    if reader == "automodel":
        config = yaml.safe_load(text)["freeze_config"]
        for field, free in (("freeze_modules", False), ("unfreeze_modules", True)):
            for selector in config[field]:
                found = [
                    module
                    for name, module in model.named_modules(remove_duplicate=False)
                    if name
                    and (name == selector.get("path") or fnmatch.fnmatchcase(name, selector.get("glob", "[never]")))
                ]
                assert any(True for module in found for _ in module.parameters()), selector
                for module in found:
                    module.requires_grad_(free)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    raise ValueError(reader)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
@pytest.mark.parametrize("reader", [name for name, reader in READERS.items() if not reader.adapts])
def test_a_reader_trains_exactly_what_is_selected(cases: Any, reader: str, name: str, tmp_path: Path) -> None:
    case = cases(name)
    if reader == "automodel" and name in ("mixtral", "qwen3-moe", "gpt-oss"):
        options = {"exclude": ["*experts*"]}  # a module with two fused parameters is freed as a whole
    else:
        options = {}
    if (reader, name) == ("ms-swift", "gpt-oss"):
        with pytest.raises(SelectionError, match=r"would also train .*experts\.gate_up_proj_bias"):
            export_selection(case.scan, reader, skeleton_of_scan(case.scan), SelectOptions(50))
        options = {"exclude": ["*gate_up_proj*", "*experts.down_proj*"]}
    export = export_selection(case.scan, reader, skeleton_of_scan(case.scan), SelectOptions(50, **options))
    assert export.note == ""
    expected = {holder for module in export.selection.names for holder in case.holders(module)}
    path = tmp_path / "selection"
    path.write_text(export.text)
    assert train_as(reader, str(path) if reader in ("trl", "names") else export.text, case.model) == expected
    counts = {name: parameter.numel() for name, parameter in case.model.named_parameters()}
    assert (export.trained, export.total) == (sum(counts[name] for name in expected), sum(counts.values()))
    assert f"{export.trained:,} of {export.total:,} parameters" in export.summary("f.yaml")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_peft_adapts_exactly_what_is_selected(cases: Any, name: str) -> None:
    peft = pytest.importorskip("peft")
    case = cases(name)
    export = export_selection(case.scan, "peft", skeleton_of_scan(case.scan), SelectOptions(50))
    chosen = {module.name for module in export.selection.modules}
    expected = {
        holder for module in chosen for holder in case.holders(module) if not holder.endswith(("bias", "_bias"))
    }
    wrapped = peft.get_peft_model(build(name), peft.LoraConfig(r=2, **json.loads(export.text)))
    adapted = {
        re.sub(r"(\.base_layer|\.default|base_model\.model\.)", "", name.split(".lora_A")[0])
        for name, _ in wrapped.named_parameters()
        if ".lora_A" in name
    }
    homes = {name.rpartition(".")[0] for name in expected if "experts" not in name}
    assert {name for name in adapted if "experts" not in name} == homes
    targets = json.loads(export.text)
    named = {f"{name}.weight" for name in targets["target_modules"]} | set(targets.get("target_parameters", []))
    assert named == expected


@pytest.mark.parametrize("name", ["llama", pytest.param("llava", marks=pytest.mark.slow)])
def test_llama_factory_adapts_exactly_what_is_selected(cases: Any, name: str) -> None:
    case = cases(name)
    export = export_selection(case.scan, "llama-factory", skeleton_of_scan(case.scan), SelectOptions(50, always="none"))
    document = yaml.safe_load(export.text)
    targets = document["lora_target"].split(",")
    if name == "llava":
        assert document["freeze_vision_tower"] is False
        targets = [home for home, _ in case.model.named_modules() if any(target in home for target in targets)]
    chosen = {module.name for module in export.selection.modules}
    expected = {holder.rpartition(".")[0] for module in chosen for holder in case.holders(module)}
    assert set(targets) == expected


def test_a_reader_that_cannot_train_the_selection_is_an_error(cases: Any) -> None:
    case = cases("mixtral")
    skeleton = skeleton_of_scan(case.scan)
    with pytest.raises(SelectionError, match="LLaMA-Factory hangs adapters on modules only"):
        export_selection(case.scan, "llama-factory", skeleton, SelectOptions(50))
    only = [f"model.layers.0.block_sparse_moe.experts.{i}.w2" for i in range(4)]
    only = [name for name in only if name in {module.name for module in case.scan.modules}] or ["*.0.*down_proj"]
    with pytest.raises(SelectionError, match=r"automodel \(.*\) would also train .*nothing was written"):
        export_selection(case.scan, "automodel", skeleton, SelectOptions(100, include=only, always="none"))
    with pytest.raises(UsageError, match="unknown reader 'unsloth': expected one of axolotl, peft, trl"):
        export_selection(case.scan, "unsloth", skeleton, SelectOptions())


def test_single_experts_are_named_to_the_reader_that_can_hold_the_others(cases: Any) -> None:
    case = cases("mixtral")
    with pytest.raises(SelectionError, match="hold several selected and unselected tensors"):
        export_selection(case.scan, "trl", skeleton_of_scan(case.scan), SelectOptions(25, fused="parts"))


def test_without_the_models_configuration_it_is_said_what_is_not_proved(tmp_path: Path) -> None:
    matrices = {
        f"model.layers.{i}.mlp.{leaf}.weight": torch.randn(8, 6) for i in range(4) for leaf in ("gate", "gate_up")
    }
    save_file(matrices, tmp_path / "model.safetensors")
    scan = sf.scan(tmp_path, top_percent=None)
    export = export_selection(scan, "axolotl", skeleton_of_scan(scan), SelectOptions(50))
    assert "not proved on the running model: there is no config.json" in export.summary("f")
    entries = yaml.safe_load(export.text)["unfrozen_parameters"]
    gates = {module.name for module in export.selection.modules if module.type == "mlp.gate"}
    assert {f"^{gate}.weight$" for gate in gates} < set(entries)  # as a prefix it would be gate_up too
    assert read_skeleton(str(tmp_path)).origin == "checkpoint"


def test_a_published_scan_needs_the_checkpoint() -> None:
    scan = sf.load_scan(Path(__file__).parent / "data" / "tiny_flat.json")
    with pytest.raises(SelectionError, match="name the checkpoint with --model"):
        skeleton_of_scan(scan)
