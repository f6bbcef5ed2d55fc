"""What is selected is what is trained: every reader, by its own code where it installs, on tiny models of eight kinds.

The truth is found by values: the parameters of the loaded model that hold the numbers of the checkpoint's selected
tensors. Nothing of how names are resolved goes into it.
"""

from __future__ import annotations

import ast
import bisect
import contextlib
import copy
import importlib.util
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import spectrum_fast as sf
from spectrum_fast.choose.selection.export.write import export_selection
from spectrum_fast.choose.selection.model.skeleton import read_skeleton, skeleton_of_scan
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


def freed(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def by_axolotl(text: str, model: Any, _: Path) -> set[str]:
    own = pytest.importorskip("axolotl.utils.freeze")
    own.freeze_layers_except(model, yaml.safe_load(text)["unfrozen_parameters"])
    return freed(model)


def by_us(_: str, model: Any, path: Path) -> set[str]:
    sf.load_selection(path).apply(model)
    return freed(model)


def by_peft(text: str, model: Any, _: Path) -> set[str]:
    peft = pytest.importorskip("peft")
    targets = json.loads(text)
    return adapted_by(peft, peft.LoraConfig(r=2, **targets), model)


def adapted_by(peft: Any, config: Any, model: Any) -> set[str]:
    """The base parameters under the adapters that PEFT has made, found by identity."""
    base = {id(parameter): name for name, parameter in model.named_parameters()}
    wrapped = peft.get_peft_model(model, config)
    layers = [module for module in wrapped.modules() if hasattr(module, "lora_A") and len(module.lora_A)]
    names = {getattr(layer, "parameter_name", "weight") or "weight" for layer in layers}
    assert names <= {"weight", "gate_up_proj", "down_proj"}, names
    return {
        base[id(getattr(layer.get_base_layer(), getattr(layer, "parameter_name", None) or "weight"))]
        for layer in layers
    }


def by_llama_factory(text: str, model: Any, _: Path) -> set[str]:
    """Its own parser, its own way with the names where there are towers, then PEFT."""
    from choose.selection.readers.test_readers_in_tools import _llama_factory_arguments

    peft = pytest.importorskip("peft")
    arguments = _llama_factory_arguments().FinetuningArguments(**yaml.safe_load(text))
    wanted = ("CompositeModel", "_register_composite_model", "get_forbidden_modules", "patch_target_modules")
    own = own_code("llamafactory", "model/model_utils/visual.py", wanted, "COMPOSITE_MODELS", dataclass=dataclass)
    targets = own["patch_target_modules"](model, arguments, arguments.lora_target)
    return adapted_by(peft, peft.LoraConfig(r=2, target_modules=targets), model)


class _Silent:
    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


def own_code(package: str, file: str, wanted: tuple[str, ...], *tables: str, **names: Any) -> dict[str, Any]:
    """What a file of a tool defines under these names, and the calls that fill its tables, without its imports."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    source = (Path(spec.submodule_search_locations[0]) / file).read_text()
    found: list[ast.stmt] = []
    for node in ast.parse(source).body:
        called = getattr(getattr(getattr(node, "value", None), "func", None), "id", None)
        assigned = getattr(getattr(node, "target", None), "id", None)
        if getattr(node, "name", None) in wanted or called in wanted or assigned in tables:
            found.append(node)
    future = ast.parse("from __future__ import annotations").body  # their types stay unread
    own: dict[str, Any] = {"logger": _Silent(), "__name__": __name__, **names}
    exec(compile(ast.Module([*future, *found], []), package, "exec"), own)  # noqa: S102
    return own


def by_ms_swift(text: str, model: Any, _: Path) -> set[str]:
    """Its own functions: all frozen by the ratio, then what is named freed."""
    wanted = ("get_n_params_grads", "freeze_parameters", "activate_parameters")
    own = own_code(
        "swift", "utils/transformers_utils.py", wanted, np=numpy, re=re, bisect_right=bisect.bisect_right,
        nullcontext=contextlib.nullcontext, is_deepspeed_zero3_enabled=lambda: False,
    )  # fmt: skip
    own["freeze_parameters"](model, 1, [])
    assert not freed(model)
    own["activate_parameters"](model, text.split())
    return freed(model)


def by_automodel(text: str, model: Any, _: Path) -> set[str]:
    own = pytest.importorskip("nemo_automodel.components.utils.model_utils")
    own.apply_parameter_freezing(model, yaml.safe_load(text)["freeze_config"])
    return freed(model)


def by_soup(text: str, model: Any, _: Path) -> set[str]:
    own = pytest.importorskip("soup_cli.utils.freeze")
    schema = pytest.importorskip("soup_cli.config.schema")
    config = schema.SoupConfig(base="m", task="sft", data={"train": "d.jsonl"}, **yaml.safe_load(text))
    own.apply_unfrozen_parameters(model, config.training.unfrozen_parameters)
    return freed(model)


OWN_CODE = {
    "axolotl": by_axolotl,
    "peft": by_peft,
    "trl": by_us,
    "ms-swift": by_ms_swift,
    "llama-factory": by_llama_factory,
    "automodel": by_automodel,
    "soup": by_soup,
    "names": by_us,
}
"""What each reader does with its file: sets ``requires_grad`` or hangs adapters; gives the names of the parameters."""

FUSED = ("mixtral", "qwen3-moe", "gpt-oss")
LEFT_OUT = {
    **{
        ("llama-factory", name): (["*experts*", router], rf"on modules only, .*--exclude '{re.escape(router)}'", 1)
        for name, router in zip(FUSED, ("*.gate", "*.gate", "*.router"), strict=True)
    },
    **{("automodel", name): (["*experts*"], r"would also train .*experts\.", 2) for name in FUSED},
    ("ms-swift", "gpt-oss"): (
        ["*gate_up_proj*", "*experts.down_proj*"],
        r"would also train .*experts\.gate_up_proj_bias",
        3,
    ),
}
"""Where a reader cannot train the selection: what is left out then, why, and the note of the table."""

REFUSED = {"automodel": SelectOptions(100, include=["*experts.down_proj"], always="none")}
"""What is certain to be refused, where half of every type is so only now and then."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_trains_exactly_what_is_selected(cases: Any, reader: str, name: str, tmp_path: Path) -> None:
    case, options = cases(name), {}
    if (reader, name) in LEFT_OUT:
        out, why, _ = LEFT_OUT[reader, name]
        with pytest.raises(SelectionError, match=why):
            export_selection(case.scan, reader, skeleton_of_scan(case.scan), REFUSED.get(reader, SelectOptions(50)))
        options = {"exclude": out}
    export = export_selection(case.scan, reader, skeleton_of_scan(case.scan), SelectOptions(50, **options))
    assert export.note == ""
    adapts = READERS[reader].adapts
    chosen = [module.name for module in export.selection.modules] if adapts else export.selection.names
    expected = {holder for module in chosen for holder in case.holders(module)}
    if adapts:
        expected = {name for name in expected if not name.endswith(("bias", "_bias"))}
    path = tmp_path / "selection"
    path.write_text(export.text)
    live = copy.deepcopy(case.model).requires_grad_(True)
    assert OWN_CODE[reader](export.text, live, path) == expected
    counts = {name: parameter.numel() for name, parameter in case.model.named_parameters()}
    assert (export.trained, export.total) == (sum(counts[name] for name in expected), sum(counts.values()))
    assert f"{export.trained:,} of {export.total:,} parameters" in export.summary("f.yaml")


def test_the_table_of_the_documentation_is_what_these_tests_prove() -> None:
    """Every cell that is not refused above says so, and every refusal has a note with its reason."""
    page = (Path(__file__).parents[4] / "docs" / "readers.md").read_text(encoding="utf-8")
    rows = ["| | " + " | ".join(READERS) + " |", "|---" * (len(READERS) + 1) + "|"]
    for name in ARCHITECTURES:
        cells = [
            f"without ({LEFT_OUT[reader, name][2]})" if (reader, name) in LEFT_OUT else "yes" for reader in READERS
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    assert "\n".join(rows) + "\n" in page, "\n".join(rows)
    for note in {note for _, _, note in LEFT_OUT.values()}:
        assert re.search(rf"^{note}\. \S", page, re.MULTILINE)


def test_a_reader_that_cannot_train_the_selection_is_an_error(cases: Any) -> None:
    case = cases("mixtral")
    skeleton = skeleton_of_scan(case.scan)
    with pytest.raises(SelectionError, match="LLaMA-Factory hangs adapters on modules only"):
        export_selection(case.scan, "llama-factory", skeleton, SelectOptions(50))
    with pytest.raises(SelectionError, match=r"automodel \(.*\) would also train .*nothing was written"):
        export_selection(case.scan, "automodel", skeleton, REFUSED["automodel"])
    with pytest.raises(UsageError, match="unknown reader 'unsloth': expected one of axolotl, peft, trl"):
        export_selection(case.scan, "unsloth", skeleton, SelectOptions())


EXPERTS = SelectOptions(25, fused="parts", grouping="experts-merged", always="none")


@pytest.mark.parametrize("name", ["mixtral", pytest.param("gpt-oss", marks=pytest.mark.slow)])
def test_single_experts_are_trained_by_the_reader_that_can_hold_the_others(
    cases: Any, name: str, tmp_path: Path
) -> None:
    """What moves in a step, found by value: the numbers that the checkpoint stores for the selected experts."""
    case = cases(name)
    export = export_selection(case.scan, "trl", skeleton_of_scan(case.scan), EXPERTS)
    path = tmp_path / "selection.json"
    path.write_text(export.text)
    live = copy.deepcopy(case.model)
    applied = sf.load_selection(path).apply(live, partial="mask")
    assert 'apply(model, partial="mask")' in export.summary(str(path))
    stored = {part: _stored(case, module.name) for module in export.selection.modules for part in [module.name]}
    expected = sum(values.numel() for values in stored.values())
    assert export.trained == applied.trainable_parameters == expected < export.total / 3
    moved = moved_by_a_step(live, case.model)
    assert sum(len(values) for values in moved.values()) == expected
    assert torch.equal(torch.cat(list(moved.values())).sort().values, torch.cat(list(stored.values())).sort().values)


def test_axolotl_holds_whole_experts_and_is_not_given_less(cases: Any) -> None:
    case, skeleton = cases("mixtral"), skeleton_of_scan(cases("mixtral").scan)
    with pytest.raises(SelectionError, match=r"axolotl trains whole rows .*write for another reader"):
        export_selection(case.scan, "axolotl", skeleton, EXPERTS)
    with pytest.raises(SelectionError, match="hold several selected and unselected tensors"):
        export_selection(case.scan, "soup", skeleton, EXPERTS)
    down = replace(EXPERTS, include=["*experts*w2"])
    export = export_selection(case.scan, "axolotl", skeleton, down)
    assert re.search(r"down_proj\$\[\d:\d\]", export.text)
    live = copy.deepcopy(case.model)
    by_axolotl(export.text, live, Path())
    moved = moved_by_a_step(live, case.model)
    expected = torch.cat([_stored(case, module.name) for module in export.selection.modules])
    assert torch.equal(torch.cat(list(moved.values())).sort().values, expected.sort().values)
    assert export.trained == len(expected)


def _stored(case: Case, module: str) -> torch.Tensor:
    """A weight and its bias; of an expert of gpt-oss a slice of the tensor that holds all of them."""
    own = [case.tensors[name].flatten() for name in (f"{module}.weight", f"{module}.bias") if name in case.tensors]
    if own:
        return torch.cat(own)
    owner, expert, leaf = module.rsplit(".", 2)
    return case.tensors[f"{owner}.{leaf}"][int(expert)].flatten()


def moved_by_a_step(live: nn.Module, before: nn.Module) -> dict[str, torch.Tensor]:
    """Parameter -> the former values of all its numbers that a step of SGD moves, whose gradient is nowhere zero."""
    trained = {name: value for name, value in live.named_parameters() if value.requires_grad}
    torch.stack([(value**2).sum() for value in trained.values()]).sum().backward()
    torch.optim.SGD(trained.values(), lr=1.0).step()
    old = dict(before.named_parameters())
    return {name: old[name].detach()[value.detach() != old[name]] for name, value in trained.items()}


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
    assert read_skeleton(str(tmp_path)).note


def test_a_published_scan_needs_the_checkpoint() -> None:
    scan = sf.load_scan(Path(__file__).parents[1] / "formats" / "data" / "tiny_flat.json")
    with pytest.raises(SelectionError, match="name the checkpoint with --model"):
        skeleton_of_scan(scan)
