"""An adapter is scanned as the difference that PEFT says it makes, and with its base as the model that PEFT merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.errors import CheckpointError, UsageError
from spectrum_fast.read.checkpoint import open_checkpoint

from support.tiny_models import make_model

RANK = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_model("llama", layers=2).save_pretrained(folder)
    return folder


def adapted(**config: Any) -> Any:
    """PEFT's own model, its matrices B drawn at random: at its start they are zero."""
    peft = pytest.importorskip("peft")
    targets = config.pop("target_modules", ["q_proj", "v_proj", "down_proj"])
    made = peft.get_peft_model(
        make_model("llama", layers=2), peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=targets, **config)
    )
    torch.manual_seed(1)
    for name, value in made.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(value)
    return made


def deltas(made: Any) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("base_model.model."): layer.get_delta_weight("default").detach().double()
        for name, layer in made.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"down_proj": 5}, "alpha_pattern": {r"layers\.1\.self_attn\.v_proj": 3}},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ],
    ids=["plain", "patterns", "embeddings"],
)
def test_an_adapter_is_the_difference_that_it_makes(tmp_path: Path, config: dict[str, Any]) -> None:
    made = adapted(**config)
    made.save_pretrained(tmp_path)
    scan = sf.scan(tmp_path, spectra=True)
    expected = deltas(made)
    assert scan.failures == ()
    assert {module.name for module in scan.modules} == set(expected)
    for name, delta in expected.items():
        module = scan.module(name)
        values = np.linalg.svd(delta.numpy(), compute_uv=False)
        assert module.shape == tuple(delta.shape)
        assert module.singular_values is not None
        np.testing.assert_allclose(module.singular_values.values, values, atol=3e-6 * values[0])
        rank = 5 if "rank_pattern" in config and "down_proj" in name else RANK
        assert module.mp_rank == module.n_signal == rank
        assert module.noise_free  # the other values are exact zeros
        assert module.note.startswith(f"decoded from LoRA, rank {rank}")
        assert module.frobenius_norm == pytest.approx(float(delta.norm()), rel=1e-6)


def test_an_adapter_and_its_base_are_scanned_as_merged(base: Path, tmp_path: Path) -> None:
    made = adapted()
    made.save_pretrained(tmp_path / "adapter")
    made.merge_and_unload().save_pretrained(tmp_path / "merged")
    found, expected = sf.scan(tmp_path / "adapter", plus=str(base)), sf.scan(tmp_path / "merged")
    assert [module.name for module in found.modules] == [module.name for module in expected.modules]
    for one, other in zip(found.modules, expected.modules, strict=True):
        assert one.snr == pytest.approx(other.snr, rel=1e-5)
    assert "plus LoRA" in found.module("model.layers.0.mlp.down_proj").note
    assert found.provenance["plus"]["model"] == base.name
    assert found.provenance["config"]["model_type"] == "llama"


def test_what_is_no_plain_lora_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    made = adapted(use_dora=True)
    made.save_pretrained(tmp_path)
    scan = sf.scan(tmp_path)
    assert not scan.modules
    assert all("DoRA" in failure.message for failure in scan.failures)
    with pytest.raises(CheckpointError, match=r"found an adapter .*--plus BASE"):
        open_checkpoint(tmp_path)
    with pytest.raises(UsageError, match="a difference by itself"):
        sf.scan(tmp_path, minus=str(base))
    with pytest.raises(UsageError, match="is no adapter"):
        sf.scan(base, plus=str(base))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r": 4}, "rank 3 is not what adapter_config.json says"),
        ({"lora_alpha": "8"}, "lora_alpha: expected a number above 0, found '8'"),
        ({"alpha_pattern": {"(a+)+$": 1}}, r"alpha_pattern holds '\(a\+\)\+\$'"),
        ({"peft_type": "IA3"}, "expected adapter_config.json beside it with peft_type LORA"),
    ],
)
def test_a_configuration_that_contradicts_the_matrices_is_a_failure(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    torch.manual_seed(0)
    said = {"peft_type": "LORA", "r": 3, "lora_alpha": 8} | change
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    name = "base_model.model.layers.0.q_proj.lora_"
    tensors = {f"{name}A.weight": torch.randn(3, 20), f"{name}B.weight": torch.randn(30, 3)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (failure,) = sf.scan(tmp_path).failures
    assert failure.name.endswith("layers.0.q_proj.lora_B")
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(failure.message)


def test_matrices_saved_whole_and_adapters_of_other_models_are_named(base: Path, tmp_path: Path) -> None:
    adapted(modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    scan = sf.scan(tmp_path)
    assert {entry.name: entry.reason for entry in scan.skipped}["lm_head"].startswith("saved whole beside the adapter")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    renamed = {name.replace("layers.1", "layers.7"): value for name, value in tensors.items()}
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    both = sf.scan(tmp_path, plus=str(base))
    assert {failure.kind for failure in both.failures} == {"base"}
    assert {failure.name.split(".")[2] for failure in both.failures} == {"7"}
