"""Ranks from spectra: those that were planted, those that hold the energy, and those that PEFT then builds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.choose.selection.export.low_ranks import module_ranks, read_rank_pattern
from spectrum_fast.choose.selection.export.write import export_selection
from spectrum_fast.choose.selection.model.skeleton import skeleton_of_scan
from spectrum_fast.choose.selection.options import RankOptions, SelectOptions
from spectrum_fast.errors import SelectionError, UsageError
from spectrum_fast.use.cli import main

from support.tiny_models import make_model

PLANTED = {"self_attn.q_proj": 2, "self_attn.o_proj": 3, "mlp.down_proj": 5}


@pytest.fixture(scope="module")
def change(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan of what training changed: updates of known ranks far above the noise of all other moves."""
    folder = tmp_path_factory.mktemp("ranks")
    make_model("llama", layers=2).save_pretrained(folder / "base")
    make_model("llama", layers=2).save_pretrained(folder / "tuned")
    tensors = load_file(folder / "base" / "model.safetensors")
    torch.manual_seed(3)
    for name, weight in tensors.items():
        if weight.dim() == 2 and "layers" in name:
            rank = next((rank for kind, rank in PLANTED.items() if kind in name), 1)
            left, right = (torch.linalg.qr(torch.randn(n, rank))[0] for n in weight.shape)
            tensors[name] = weight + 1e-4 * torch.randn(weight.shape) + left @ right.T * 0.1
    save_file(tensors, folder / "tuned" / "model.safetensors", metadata={"format": "pt"})
    sf.scan(folder / "tuned", minus=str(folder / "base"), out=folder / "change.json")
    return folder / "change.json"


def planted(name: str) -> int:
    return next((rank for kind, rank in PLANTED.items() if kind in name), 1)


def test_planted_ranks_are_written_and_built_by_peft(
    change: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    out = tmp_path / "k.json"
    words = ["select", str(change), "--top-percent", "100", "--for", "peft", "--ranks", "edge", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["spectrum-fast", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    said = json.loads(out.read_text())
    model = peft.get_peft_model(make_model("llama", layers=2), peft.LoraConfig(**said))
    built: dict[str, Any] = {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }
    assert built.keys() == {module.name for module in sf.load_scan(change).modules if "layers" in module.name}
    for name, layer in built.items():
        assert layer.r["default"] == planted(name), name
        assert layer.scaling["default"] == 1.0
    assert read_rank_pattern(out) == {name: planted(name) for name in said["target_modules"]}


def test_a_share_of_the_energy_takes_as_many_values_as_hold_it(change: Path) -> None:
    scan = sf.load_scan(change)
    base, tuned = (load_file(change.parent / name / "model.safetensors") for name in ("base", "tuned"))
    ranks = module_ranks(scan, RankOptions(ranks="0.97"))
    for module in scan.modules:
        difference = (tuned[module.parameter].double() - base[module.parameter].double()).numpy()
        energies = np.linalg.svd(difference, compute_uv=False) ** 2
        if energies.sum():
            assert ranks[module.name] == 1 + int((np.cumsum(energies) < 0.97 * energies.sum()).sum())
        else:
            assert ranks[module.name] == 1  # what was not trained
    assert max(module_ranks(scan, RankOptions(ranks="0.97", max_rank=2)).values()) == 2


def test_bad_rules_and_readers_without_ranks_are_refused(change: Path, tmp_path: Path) -> None:
    scan = sf.load_scan(change)
    for rule in ("0", "1", "half", "nan"):
        with pytest.raises(UsageError, match="expected edge, or a share"):
            RankOptions(ranks=rule)
    with pytest.raises(UsageError, match="--ranks is for adapters, and axolotl trains whole"):
        export_selection(scan, "axolotl", skeleton_of_scan(scan), SelectOptions(), RankOptions(ranks="edge"))
    for text in ("[]", '{"target_modules": ["a"]}', '{"target_modules": ["a"], "r": 0, "rank_pattern": {}}'):
        (tmp_path / "k.json").write_text(text)
        with pytest.raises(SelectionError, match=r"k\.json"):
            read_rank_pattern(tmp_path / "k.json")
