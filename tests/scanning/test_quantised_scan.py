"""A quantised checkpoint scores as its decoded twin does, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.errors import CheckpointError

from support import matrices, truth

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)


def assert_scores(scan: sf.Scan, decoded: dict[str, torch.Tensor]) -> None:
    assert scan.failures == ()
    assert {module.name for module in scan.modules} == set(decoded)
    for name, weight in decoded.items():
        module = scan.module(name)
        expected = truth.exact(weight)
        assert module.snr == pytest.approx(expected.snr, rel=1e-4), name
        assert module.n_noise == expected.n_noise


def test_fp8_blocks_with_the_scale_in_another_shard(tmp_path: Path) -> None:
    weight = matrices.trained_like(300, 420, seed=31).to(torch.float32)
    grid = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    scale = grid.repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :420]
    codes = (weight / scale).to(torch.float8_e4m3fn)
    name = "model.layers.0.mlp.up_proj"
    save_file({f"{name}.weight": codes}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({f"{name}.weight_scale_inv": grid}, tmp_path / "model-00002-of-00002.safetensors")
    index = {f"{name}.weight": "model-00001-of-00002.safetensors"}
    index[f"{name}.weight_scale_inv"] = "model-00002-of-00002.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    scan = sf.scan(tmp_path)
    assert_scores(scan, {name: codes.to(torch.float64) * scale})
    assert scan.module(name).dtype == "F8_E4M3"
    assert "DeepSeek" in scan.module(name).note


def test_mxfp4_experts(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    experts, rows, groups = 3, 40, 3
    blocks = torch.randint(0, 256, (experts, rows, groups, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(120, 125, (experts, rows, groups), dtype=torch.uint8, generator=generator)
    prefix = "model.layers.0.mlp.experts"
    save_file(
        {f"{prefix}.down_proj_blocks": blocks, f"{prefix}.down_proj_scales": scales}, tmp_path / "model.safetensors"
    )
    nibbles = torch.stack([blocks & 15, blocks >> 4], dim=-1).reshape(experts, rows, groups, 32).long()
    decoded = E2M1[nibbles] * (2.0 ** (scales.double() - 127))[..., None]
    decoded = decoded.reshape(experts, rows, groups * 32)
    assert_scores(sf.scan(tmp_path), {f"{prefix}.{e}.down_proj": decoded[e] for e in range(experts)})


def test_fused_bfloat16_experts_compete_as_one_group_when_merged(tmp_path: Path) -> None:
    stack = torch.stack([matrices.trained_like(48, 64, seed=40 + e) for e in range(8)]).to(torch.bfloat16)
    prefix = "model.layers.0.mlp.experts"
    save_file({f"{prefix}.gate_up_proj": stack}, tmp_path / "model.safetensors")
    scan = sf.scan(tmp_path)
    assert_scores(scan, {f"{prefix}.{e}.gate_up_proj": stack[e] for e in range(8)})
    assert {module.parameter for module in scan.modules} == {f"{prefix}.gate_up_proj"}
    assert len(scan.select(top_percent=25, grouping="experts-merged", fused="parts").modules) == 2


def test_a_missing_scale_is_a_failure_that_names_it(tmp_path: Path) -> None:
    plain = matrices.gaussian(20, 30).to(torch.float32)
    save_file(
        {"model.layers.0.mlp.up_proj.weight": torch.ones(8, 8).to(torch.float8_e4m3fn), "lm_head.weight": plain},
        tmp_path / "model.safetensors",
    )
    scan = sf.scan(tmp_path)
    assert [failure.name for failure in scan.failures] == ["model.layers.0.mlp.up_proj"]
    assert scan.failures[0].dtype == "F8_E4M3"
    assert "model.layers.0.mlp.up_proj.weight_scale beside it, found in no file" in scan.failures[0].message
    assert [module.name for module in scan.modules] == ["lm_head"]


@pytest.mark.parametrize(("case", "checkpoint_format"), [("v1", "gptq"), ("v2", "gptq_v2")])
def test_gptq_as_its_library_packed_it(tmp_path: Path, case: str, checkpoint_format: str) -> None:
    stored = load_file(Path(__file__).parents[1] / "read" / "formats" / "gptq.safetensors")
    layer = {role: stored[f"int4, any order, {case}.{role}"] for role in ("qweight", "scales", "qzeros", "g_idx")}
    name = "model.layers.0.mlp.up_proj"
    save_file({f"{name}.{role}": tensor for role, tensor in layer.items()}, tmp_path / "model.safetensors")
    section = {"quant_method": "gptq", "bits": 4, "desc_act": True, "checkpoint_format": checkpoint_format}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": section}))
    scan = sf.scan(tmp_path)
    decoded = stored[f"int4, any order, {case}.decoded"]
    assert scan.module(name).snr == pytest.approx(truth.exact(decoded).snr, rel=1e-3)  # the library's is float16
    assert "GPTQ" in scan.module(name).note
    assert scan.module(name).parameter == f"{name}.weight"


def fp8(*shape: int) -> torch.Tensor:
    return torch.ones(shape).to(torch.float8_e4m3fn)


def words(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


GPTQ = {"quant_method": "gptq", "bits": 4}
AWQ = {"quant_method": "awq", "bits": 4}


@pytest.mark.parametrize(
    ("tensors", "section"),
    [
        ({"weight": fp8(256, 256), "weight_scale_inv": torch.zeros(0, 1)}, {}),
        ({"weight": fp8(256, 256), "weight_scale_inv": torch.zeros(1, 0)}, {}),
        ({"weight": fp8(256, 256), "weight_scale_inv": torch.zeros(64, 0)}, {}),
        ({"weight": fp8(), "weight_scale_inv": torch.ones(1)}, {}),
        ({"weight": fp8(0, 4), "weight_scale": torch.ones(1)}, {}),
        ({"qweight": words(12, 0), "qzeros": words(3, 0), "scales": torch.zeros(3, 0)}, GPTQ),
        ({"qweight": words(12, 64), "qzeros": words(0, 8), "scales": torch.zeros(0, 64)}, GPTQ),
        ({"qweight": words(96, 0), "qzeros": words(3, 0), "scales": torch.zeros(3, 0)}, AWQ),
        ({"qweight": words(96, 8), "qzeros": words(0, 8), "scales": torch.zeros(0, 64)}, AWQ),
        (
            {
                "weight_packed": words(64, 12),
                "weight_scale": torch.zeros(64, 0),
                "weight_shape": torch.tensor([64, 96]),
            },
            {},
        ),
    ],
)
def test_codes_or_companions_without_values_are_a_failure_of_that_tensor(tmp_path: Path, tensors, section) -> None:
    name = "model.layers.0.mlp.up_proj"
    stored = {f"{name}.{part}": tensor for part, tensor in tensors.items()}
    save_file(stored | {"lm_head.weight": matrices.gaussian(20, 30)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": section}))
    scan = sf.scan(tmp_path)
    (failure,) = scan.failures
    assert failure.name.startswith(name)
    assert failure.kind == "unsupported"
    assert "expected values in" in failure.message or "expected a matrix" in failure.message
    assert "scan the unquantised checkpoint" in failure.message
    assert [module.name for module in scan.modules] == ["lm_head"]


def test_more_experts_than_any_model_has_are_refused_before_a_record_is_made_of_them(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    save_file(
        {name: torch.ones(400_000, 1, 1).bfloat16(), "lm_head.weight": torch.ones(4, 4)}, tmp_path / "m.safetensors"
    )
    scan = sf.scan(tmp_path / "m.safetensors")
    (failure,) = scan.failures
    assert failure.name == name
    assert "expected at most 8192 experts, found 400000 in shape (400000, 1, 1)" in failure.message


def test_more_matrices_than_any_model_has_are_refused(tmp_path: Path) -> None:
    stack = {f"layers.{layer}.experts.w": torch.ones(8192, 1, 1).bfloat16() for layer in range(33)}
    save_file(stack, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"at most 262144 matrices in all, found more by tensor 'layers\..*'"):
        sf.scan(tmp_path / "m.safetensors")


def test_tables_of_rates_and_biases_are_skipped(tmp_path: Path) -> None:
    names = ["backbone.layers.0.mixer.A_log", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    save_file(
        {name: torch.ones(32, 8) for name in names} | {"lm_head.weight": torch.eye(4)}, tmp_path / "m.safetensors"
    )
    scan = sf.scan(tmp_path / "m.safetensors")
    assert [module.name for module in scan.modules] == ["lm_head"]
    assert {entry.reason for entry in scan.skipped} == {"a table of rates or biases, which multiplies nothing"}
