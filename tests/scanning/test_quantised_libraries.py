"""Checkpoints written by the libraries that define their formats score as what those libraries read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectrum_fast as sf

from support import matrices, truth

NAME = "model.layers.0.mlp.up_proj"


def assert_score(folder: Path, tensors: dict[str, torch.Tensor], config: dict, decoded: torch.Tensor) -> None:
    """Scan ``{NAME}.<key>`` and compare with the float64 truth of what the library decoded."""
    stored = {f"{NAME}.{key}": value.contiguous() for key, value in tensors.items()}
    save_file(stored, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    scan = sf.scan(folder)
    assert scan.failures == ()
    (module,) = scan.modules
    expected = truth.exact(decoded)
    assert (module.name, module.parameter, module.shape) == (NAME, f"{NAME}.weight", tuple(decoded.shape))
    assert module.snr == pytest.approx(expected.snr, rel=1e-4)
    assert module.s_max == pytest.approx(expected.values[-1], rel=1e-5)
    assert module.n_noise == expected.n_noise
    assert module.note.startswith("decoded from ")
    main = stored.get(f"{NAME}.weight", stored.get(f"{NAME}.weight_packed"))
    assert {entry.name for entry in scan.skipped} == {
        name for name, tensor in stored.items() if main is None or tensor is not main
    }


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    return matrices.trained_like(192, 256, seed=7).to(torch.float32)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_4bit(tmp_path, weight, kind, nested):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(256, 192, bias=False, quant_type=kind, compress_statistics=nested)
    layer.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, quant_type=kind, compress_statistics=nested, blocksize=64
    ).to("cpu")
    decoded = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert_score(tmp_path, layer.state_dict(), {}, decoded)


def test_bitsandbytes_int8(tmp_path, weight):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear8bitLt(256, 192, bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": weight})
    layer = layer.to("cpu")
    state = layer.state_dict()
    decoded = bitsandbytes.functional.int8_vectorwise_dequant(state["weight"], state["SCB"])
    assert_score(tmp_path, state, {}, decoded)


@pytest.mark.parametrize(
    ("layout", "arguments", "grid"),
    [
        ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}, (1, 1)),
        ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}, (192, 1)),
        ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [64, 64]}, (3, 4)),
        ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}, (192, 1)),
        ("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}, (192, 4)),
        ("pack-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}, (192, 1)),
    ],
)
def test_compressed_tensors(tmp_path, weight, layout, arguments, grid):
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    args = quantization.QuantizationArgs(symmetric=True, **arguments)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    compressor = compressors.BaseCompressor.get_value_from_registry(layout)
    largest = weight.view(grid[0], 192 // grid[0], grid[1], 256 // grid[1]).abs().amax(dim=(1, 3))
    top = {("float", 8): 448.0, ("int", 8): 127.0, ("int", 4): 7.0}[arguments["type"], arguments["num_bits"]]
    scale = largest / top
    scale = scale.reshape(1) if arguments["strategy"] == "tensor" else scale
    stored = compressor.compress({"weight": weight, "weight_scale": scale}, scheme)
    decoded = compressor.decompress(dict(stored), scheme)["weight"]
    section = {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": {"weights": arguments}},
    }
    assert_score(tmp_path, stored, {"quantization_config": section}, decoded)


def test_deepseek_blocks_as_transformers_reads_them(tmp_path, weight):
    finegrained = pytest.importorskip("transformers.integrations.finegrained_fp8")
    largest = weight.view(3, 64, 2, 128).abs().amax(dim=(1, 3))
    scale = largest / 448.0
    expanded = scale.repeat_interleave(64, 0).repeat_interleave(128, 1)
    codes = (weight / expanded).to(torch.float8_e4m3fn)
    decoded = finegrained.Fp8Dequantize(None)._dequantize_one(codes, scale, output_dtype=torch.float32)
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 128]}}
    assert_score(tmp_path, {"weight": codes, "weight_scale_inv": scale}, config, decoded)


def test_mxfp4_experts_as_transformers_reads_them(tmp_path):
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(0, 256, (2, 64, 3, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(118, 126, (2, 64, 3), generator=generator, dtype=torch.uint8)
    prefix = "model.layers.0.mlp.experts"
    save_file(
        {f"{prefix}.down_proj_blocks": blocks, f"{prefix}.down_proj_scales": scales}, tmp_path / "model.safetensors"
    )
    decoded = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16).cpu()  # [experts, in, out]
    scan = sf.scan(tmp_path)
    assert scan.failures == ()
    assert len(scan.modules) == 2
    for expert in range(2):
        module = scan.module(f"{prefix}.{expert}.down_proj")
        assert module.snr == pytest.approx(truth.exact(decoded[expert]).snr, rel=1e-4)
        assert module.parameter == f"{prefix}.down_proj"
