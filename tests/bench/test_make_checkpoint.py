"""The checkpoint generator: names and shapes against published numbers, files against the safetensors library."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bench import weights
from bench.families import FAMILIES, model_config
from bench.make_checkpoint import main, make_tensor, model_shapes, write_checkpoint
from bench.peers import exact_score
from spectrum_fast.errors import UsageError


def count_parameters(like: str, layers: int | None = None) -> int:
    return sum(prod(shape) for shape in model_shapes(like, layers).values())


@pytest.mark.parametrize(
    ("like", "total"),
    [
        # totals as published with the models (safetensors metadata of each repository)
        ("llama-3-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen2-7b", 7_615_616_512),
        ("mixtral-8x7b", 46_702_792_704),
        ("minilm", 22_713_216),
    ],
)
def test_totals_are_the_published_ones(like, total):
    assert count_parameters(like) == total


def test_llama_layer_count():
    one, two = (count_parameters("llama-3-8b", layers=n) for n in (1, 2))
    assert two - one == 218_112_000
    assert model_shapes("llama-3-8b", 1)["model.layers.0.self_attn.k_proj.weight"] == (1024, 4096)


def test_deepseek_has_dense_then_expert_layers():
    shapes = model_shapes("deepseek-v3-mini", 2)
    assert "model.layers.0.mlp.down_proj.weight" in shapes
    assert "model.layers.1.mlp.experts.15.down_proj.weight" in shapes
    assert "model.layers.1.mlp.shared_experts.up_proj.weight" in shapes
    assert "model.layers.0.mlp.gate.weight" not in shapes


def test_tied_head_is_absent():
    assert "lm_head.weight" not in model_shapes("tiny")
    assert "lm_head.weight" in model_shapes("llama-3-8b")
    assert model_config("tiny")["tie_word_embeddings"] is True


@pytest.mark.parametrize("like", list(FAMILIES))
def test_scale_keeps_names_and_divides_shapes(like):
    full, small = model_shapes(like, 1), model_shapes(like, 1, 4)
    assert list(full) == list(small)
    for name, shape in full.items():
        if name.endswith(("gate.weight", "e_score_correction_bias", "position_embeddings.weight")):
            assert small[name][-1] in (shape[-1] // 4, shape[-1])
        elif "token_type" not in name:
            assert small[name] == tuple(side // 4 for side in shape)


def test_embeddings_can_be_left_out():
    shapes = model_shapes("llama-3-8b", 1, embeddings=False)
    assert max(shapes.values(), key=prod) == (14336, 4096)


@pytest.mark.parametrize("like", list(FAMILIES))
def test_single_file_is_read_by_safetensors(like, tmp_path):
    scale = 1 if like == "tiny" else 32
    written = write_checkpoint(tmp_path / "model", like=like, layers=2, scale=scale)
    shapes = model_shapes(like, 2, scale)
    with safe_open(written.files[0], framework="pt") as file:
        assert set(file.keys()) == set(shapes)
        for name, shape in shapes.items():
            tensor = file.get_tensor(name)
            assert tuple(tensor.shape) == shape
            assert torch.isfinite(tensor.float()).all()
            assert torch.equal(tensor, make_tensor(name, shape, dtype=tensor.dtype))
    assert written.n_parameters == sum(map(prod, shapes.values()))
    header_bytes = int.from_bytes(written.files[0].read_bytes()[:8], "little")
    assert header_bytes % 8 == 0
    assert written.files[0].stat().st_size == 8 + header_bytes + written.total_bytes
    assert sorted(path.name for path in written.path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)]
)
def test_dtypes_round_the_same_values(dtype, expected, tmp_path):
    written = write_checkpoint(tmp_path, like="tiny", dtype=dtype)
    tensors = load_file(written.files[0])
    name = "model.layers.1.mlp.up_proj.weight"
    assert tensors[name].dtype == expected
    exact = make_tensor(name, tuple(tensors[name].shape), dtype=torch.float32)
    assert torch.equal(tensors[name], exact.to(expected))


def test_shards_and_index_hold_the_same_tensors(tmp_path):
    whole = load_file(write_checkpoint(tmp_path / "whole", like="tiny", seed=3).files[0])
    written = write_checkpoint(tmp_path / "cut", like="tiny", seed=3, shard_gib=40_000 / 2**30)
    assert len(written.files) > 2
    assert written.files[0].name == f"model-00001-of-{len(written.files):05d}.safetensors"
    index = json.loads((written.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == written.total_bytes == sum(t.nbytes for t in whole.values())
    parts = {file.name: load_file(file) for file in written.files}
    assert set(index["weight_map"]) == set(whole)
    for name, file in index["weight_map"].items():
        assert torch.equal(parts[file][name], whole[name])
    for tensors in parts.values():
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 40_000


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    files = [write_checkpoint(tmp_path / str(i), like="tiny", seed=seed).files[0] for i, seed in enumerate((1, 1, 2))]
    first, again, other = (path.read_bytes() for path in files)
    assert first == again
    assert first != other


def test_tensor_in_blocks_is_whole(monkeypatch):
    monkeypatch.setattr(weights, "BLOCK_ELEMENTS", 1000)
    name, shape = "model.layers.3.mlp.up_proj.weight", (90, 64)
    blocks = list(weights.iter_row_blocks(name, shape, seed=5))
    assert [len(block) for block in blocks] == [15] * 6
    assert torch.equal(torch.cat(blocks), make_tensor(name, shape, seed=5, dtype=torch.float32))
    assert not torch.equal(blocks[0], blocks[1])


@pytest.mark.parametrize(("layer", "in_noise"), [(0, 0), (1, 1), (2, 2), (3, 30)])
def test_value_projection_has_few_values_in_the_noise_set(layer, in_noise):
    weight = make_tensor(f"model.layers.{layer}.self_attn.v_proj.weight", (256, 1024))
    assert exact_score(weight)["n_noise"] == in_noise


def test_spectra_are_heavy_tailed():
    down = exact_score(make_tensor("model.layers.0.mlp.down_proj.weight", (256, 896)))
    assert 20 < down["s_max"] / down["q50"] < 200
    query = exact_score(make_tensor("model.layers.0.self_attn.q_proj.weight", (256, 256)))
    assert 4 < query["s_max"] / query["q50"] < 40
    assert 0 < query["n_noise"] < 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": "gpt-9"}, "unknown model family 'gpt-9'"),
        ({"like": "tiny", "layers": 0}, "at least one layer"),
        ({"like": "tiny", "scale": 0}, "at least 1, found 0"),
        ({"like": "tiny", "dtype": "fp8"}, "unknown dtype 'fp8'"),
        ({"like": "tiny", "shard_gib": 0.0}, "positive size"),
    ],
)
def test_bad_arguments_are_refused(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        write_checkpoint(tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_command_line(tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["--like", "llama-3-8b", "--layers", "1", "--scale", "64", "--no-embeddings", "--out", str(out)]) == 0
    assert "1 file(s)" in capsys.readouterr().out
    assert (out / "model.safetensors").exists()
    assert main(["--like", "tiny", "--layers", "0", "--out", str(out)]) == 2
    assert "at least one layer" in capsys.readouterr().err


def test_script_runs_from_anywhere(tmp_path):
    import subprocess
    import sys

    script = Path(__file__).parents[2] / "bench" / "make_checkpoint.py"
    command = [sys.executable, str(script), "--like", "tiny", "--out", str(tmp_path / "m")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "m" / "config.json").exists()
