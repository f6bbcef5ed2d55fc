"""Fused parameters in a selection: they compete whole, or part by part; what is frozen is always whole."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.choose.selection.export.ambiguity import export_warnings
from spectrum_fast.choose.selection.formats import write_scores, write_selection
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import SelectionError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure
from spectrum_fast.read.checkpoint.naming import module_type


def expert(layer: int, index: int, signal: float, home: str = "mlp.experts") -> ModuleScore:
    name = f"model.layers.{layer}.{home}.{index}.up"
    return ModuleScore(
        name=name,
        type=module_type(name),
        parameter=f"model.layers.{layer}.{home}.up",
        shape=(8, 6),
        snr=signal,
        s_max=1.0,
        s_min=0.1,
        threshold=0.5,
        signal_sum=signal,
        noise_sum=1.0,
        n_signal=3,
        n_noise=3,
        error_bound=1e-6,
        parts=2,
        parameter_shape=(2, 8, 6),
    )


def router(layer: int) -> ModuleScore:
    name = f"model.layers.{layer}.mlp.router"
    return ModuleScore(name=name, type="mlp.router", parameter=f"{name}.weight", snr=1.0 + layer, shape=(2, 6))


def moe() -> Scan:
    """Four layers of two experts; the best single expert is in layer 0, the best layer is 3."""
    signals = [(9.0, 1.0), (2.0, 2.0), (3.0, 3.0), (6.0, 6.0)]
    modules = [expert(layer, e, signal) for layer, pair in enumerate(signals) for e, signal in enumerate(pair)]
    return Scan("moe", "spectrum", tuple(modules) + tuple(map(router, range(4))))


def names(selection) -> list[str]:
    return [module.name.removeprefix("model.layers.") for module in selection.modules]


def test_the_parameter_competes_by_its_pooled_score():
    selection = moe().select(25)
    assert names(selection) == ["3.mlp.experts.up", "3.mlp.router"]
    assert [(group.name, group.size) for group in selection.groups] == [("mlp.experts.up", 4), ("mlp.router", 4)]
    assert (selection.fused, selection.modules[0].snr, selection.modules[0].shape) == ("parameter", 6.0, (2, 8, 6))


def test_parts_compete_by_themselves_when_asked():
    selection = moe().select(25, fused="parts", grouping="experts-merged")
    assert names(selection) == ["0.mlp.experts.0.up", "3.mlp.experts.0.up", "3.mlp.router"]
    assert selection.modules[0].parameter_shape == (2, 8, 6)
    assert parse_selection(write_selection(selection)) == selection


@pytest.mark.parametrize("pattern", ["*.layers.3.mlp.experts.up", "*.layers.3.mlp.experts.1.up"])
def test_a_pattern_excludes_the_parameter_by_its_name_or_that_of_a_part(pattern):
    selection = moe().select(34, exclude=[pattern])
    assert (names(selection)[0], selection.groups[0].size) == ("0.mlp.experts.up", 3)


def test_a_pattern_names_one_part_alone_where_parts_compete():
    asked = {"fused": "parts", "grouping": "experts-merged"}
    excluded = moe().select(100, exclude=["*.layers.3.mlp.experts.0.up"], **asked)
    assert {"3.mlp.experts.0.up", "3.mlp.experts.1.up"} & set(names(excluded)) == {"3.mlp.experts.1.up"}
    included = moe().select(100, include=["*.layers.3.mlp.experts.0.up"], **asked)
    assert names(included) == ["3.mlp.experts.0.up"]
    always = moe().select(25, always=["*.layers.3.mlp.experts.0.up"], **asked).always
    assert always == ("model.layers.3.mlp.experts.0.up",)


def test_a_pattern_includes_the_parameter_only_whole():
    assert names(moe().select(100, include=["*.layers.1.mlp.experts.*.up"])) == ["1.mlp.experts.up"]
    with pytest.raises(SelectionError, match="nothing to select from"):
        moe().select(100, include=["*.layers.1.mlp.experts.0.up"])


def test_always_frees_the_parameter_of_a_named_part():
    selection = moe().select(25, always=["*.layers.2.mlp.experts.0.up"])
    assert selection.always == ("model.layers.2.mlp.experts.up",)


def test_a_failed_part_takes_its_parameter_out_of_the_race():
    scan = moe()
    lost = ScanFailure(name=scan.modules[7].name, kind="values", message="NaN", parameter=scan.modules[7].parameter)
    broken = Scan("moe", "spectrum", scan.modules[:7] + scan.modules[8:], (lost,))
    selection = broken.select(34, allow_incomplete=True)
    assert names(selection)[0] == "0.mlp.experts.up"
    assert selection.groups[0].size == 3
    assert selection.failed == (lost.name,)


@pytest.mark.parametrize("fused", ["parameter", "parts"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_applying_frees_the_whole_parameter(fused, wrapped):
    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.Parameter(torch.zeros(2, 8, 6))

    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.layers = torch.nn.ModuleList()
    for _ in range(4):
        layer = torch.nn.Module()
        layer.mlp = torch.nn.Module()
        layer.mlp.experts = Experts()
        layer.mlp.router = torch.nn.Linear(6, 2)
        model.model.layers.append(layer)
    if wrapped:
        outer = torch.nn.Module()
        outer.module = model
        model = outer
    selection = moe().select(25, fused=fused, grouping="experts-merged")
    if fused == "parts":
        with pytest.raises(SelectionError, match=r"up: 1 of its 2 tensors are selected"):
            selection.apply(model)
    selection.apply(model, partial="whole")
    free = {name.removeprefix("module.") for name, value in model.named_parameters() if value.requires_grad}
    expected = {"model.layers.3.mlp.experts.up", "model.layers.3.mlp.router.weight", "model.layers.3.mlp.router.bias"}
    assert free == expected | ({"model.layers.0.mlp.experts.up"} if fused == "parts" else set())


def test_other_formats_name_whole_parameters():
    selection = moe().select(50, fused="parts", grouping="experts-merged")
    assert write_selection(selection, "names").splitlines()[:2] == [
        "model.layers.0.mlp.experts.up",
        "model.layers.3.mlp.experts.up",
    ]
    yaml = write_selection(selection, "axolotl").splitlines()
    assert yaml.count("- model.layers.3.mlp.experts.up") == 1
    assert not any("experts.0" in line for line in yaml)
    assert "experts" not in write_selection(selection, "peft")  # no Linear: PEFT's target_modules cannot name it
    assert any("cannot carry an adapter" in text for text in export_warnings(selection, moe(), "peft"))
    assert '"model.layers.3.mlp.experts.up"' in write_scores(moe())


def test_a_part_of_a_matrix_is_adapted_as_a_whole():
    part = ModuleScore(
        name="layers.0.attn.qkv_proj.q",
        type="attn.qkv_proj.q",
        parameter="layers.0.attn.qkv_proj.weight",
        shape=(4, 8),
        snr=2.0,
        parts=3,
        parameter_shape=(12, 8),
    )
    selection = Scan("m", "spectrum", (part,)).select(100, fused="parts")
    assert write_selection(selection, "peft") == '[\n "layers.0.attn.qkv_proj"\n]\n'
