"""Base and adapter make the model again, PEFT loads them, and they are PEFT's own PiSSA."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spectrum_fast.errors import UsageError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.scanning.plan import plan_scan
from spectrum_fast.use.cli import main
from spectrum_fast.use.laser import pissa_targets

from support.tiny_models import make_model

RANK = 4


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    make_model("llama", layers=2).to(getattr(torch, request.param)).save_pretrained(path)
    return path


def split(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", ["spectrum-fast", "pissa", str(model), "--out", str(out), *more])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0


def test_base_and_adapter_make_the_model_and_are_those_of_peft(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    split(folder, tmp_path / "out", monkeypatch, "--rank", str(RANK))
    before, rest = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    adapter = load_file(tmp_path / "out" / "pissa_init" / "adapter_model.safetensors")
    original = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="pissa", target_modules="all-linear")
    theirs = peft.get_peft_model(original, config).state_dict()
    pairs = [name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")]
    assert len(pairs) == 14  # all linear layers of both blocks; the head is none of them for PEFT either
    for pair in pairs:
        name = f"{pair.removeprefix('base_model.model.')}.weight"
        b, a = (adapter[f"{pair}.lora_{kind}.weight"].double() for kind in "BA")
        weight, left = before[name].double(), rest[name].double()
        # What is lost is the rounding of the rest to the stored type, and of the factors' product.
        unit = torch.finfo(before[name].dtype).eps / 2
        assert ((left + b @ a - weight).abs() <= unit * left.abs() + 1e-12).all()
        their_b, their_a = (theirs[f"{pair}.lora_{kind}.default.weight"].double() for kind in "BA")
        # PEFT rounds its factors to the model's type.
        assert float((b @ a - their_b @ their_a).norm()) <= max(1e-4, 2 * unit) * float((b @ a).norm())
        assert float((b.T @ b - a @ a.T).norm()) <= 1e-5 * float((b.T @ b).norm())  # both carry the root of S
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "out" / "pissa_init", is_trainable=True)
    assert loaded.get_nb_trainable_parameters()[0] == sum(value.numel() for value in adapter.values())
    tokens = torch.tensor([[3, 5, 7, 11]])
    with torch.no_grad():
        expected = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")(tokens).logits
        found = loaded(tokens).logits
    assert torch.allclose(found.float(), expected.float(), atol=2e-5 if expected.dtype == torch.float32 else 3e-2)


def test_ranks_of_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    said = {"target_modules": names, "r": 2, "rank_pattern": {names[1]: 5}}
    (tmp_path / "k.json").write_text(json.dumps(said))
    split(folder, tmp_path / "out", monkeypatch, "--ranks", str(tmp_path / "k.json"))
    modes = {path.stat().st_mode for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    assert len(modes) == 1  # whoever may read the base may read the adapter
    config = json.loads((tmp_path / "out" / "pissa_init" / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == sorted(names)
    adapter = load_file(tmp_path / "out" / "pissa_init" / "adapter_model.safetensors")
    found = {name: value.shape[0] for name, value in adapter.items() if ".lora_A." in name}
    assert found == {f"base_model.model.{name}.lora_A.weight": rank for name, rank in zip(names, (2, 5), strict=True)}


def test_a_model_without_a_matrix_to_split_is_refused(folder: Path) -> None:
    weights = plan_scan(open_checkpoint(folder)).weights
    with pytest.raises(UsageError, match=r"nn\.Linear"):
        pissa_targets(weights, torch.nn.Identity(), 4)
    with pytest.raises(UsageError, match="a smaller rank"):
        pissa_targets(weights, make_model("llama", layers=2), 64)
