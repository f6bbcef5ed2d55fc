"""Each packed layout by its names, and plain checkpoints left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.dtypes import decodable, require_decodable, storage_dtype
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.config import QuantisationConfig
from spectrum_fast.read.formats.planning import plan_packed
from spectrum_fast.read.formats.recognition import find_packed


def refs(types: dict[str, str]) -> list[TensorRef]:
    return [TensorRef(name, Path("m.safetensors"), dtype, (4, 4), 0, 16) for name, dtype in types.items()]


LAYOUTS = {
    "DeepSeek": ({"l.0.q.weight": "F8_E4M3"}, {"l.0.q.weight_scale_inv": "F32"}, "codes with scales"),
    "compressed-tensors FP8": (
        {"l.0.q.weight": "F8_E4M3"},
        {"l.0.q.weight_scale": "BF16", "l.0.q.input_scale": "BF16"},
        "codes with scales",
    ),
    "ModelOpt NVFP4": (
        {"q.weight": "U8"},
        {"q.weight_scale": "F8_E4M3", "q.weight_scale_2": "F32", "q.input_scale": "F32"},
        "NVFP4",
    ),
    "scale beside a bf16 weight": ({"q.weight": "BF16"}, {"q.weight_scale": "F32"}, "codes with scales"),
    "gpt-oss": ({"mlp.experts.down_proj_blocks": "U8"}, {"mlp.experts.down_proj_scales": "U8"}, "MXFP4"),
    "bitsandbytes NF4": (
        {"q.weight": "U8"},
        {
            "q.weight.absmax": "F32",
            "q.weight.quant_map": "F32",
            "q.weight.nested_absmax": "F32",
            "q.weight.nested_quant_map": "F32",
            "q.weight.quant_state.bitsandbytes__nf4": "U8",
        },
        "NF4",
    ),
    "bitsandbytes int8": ({"q.weight": "I8"}, {"q.SCB": "F32", "q.weight_format": "U8"}, "int8"),
    "GPTQ": ({"q.qweight": "I32"}, {"q.qzeros": "I32", "q.scales": "F16", "q.g_idx": "I32"}, "GPTQ"),
    "AWQ": ({"q.qweight": "I32"}, {"q.qzeros": "I32", "q.scales": "F16"}, "AWQ"),
    "compressed-tensors int4": (
        {"q.weight_packed": "I32"},
        {"q.weight_scale": "BF16", "q.weight_shape": "I64", "q.weight_zero_point": "I32", "q.weight_g_idx": "I32"},
        "packed",
    ),
    "MLX": ({"q.weight": "U32"}, {"q.scales": "BF16", "q.biases": "BF16"}, "MLX"),
    "HQQ": ({"q.W_q": "U8"}, {"q.scale": "F16", "q.zero": "F16"}, "HQQ"),
    "AQLM": ({"q.codes": "I16"}, {"q.codebooks": "F16", "q.scales": "F16"}, "AQLM"),
    "quanto": ({"q.weight._data": "I8"}, {"q.weight._scale": "BF16", "q.weight._shift": "BF16"}, "quanto"),
    "fused FP8 experts": (
        {"experts.gate_up_proj": "F8_E4M3"},
        {"experts.gate_up_proj_scale_inv": "F32"},
        "codes with scales",
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("backwards", [False, True])
def test_layouts(case, backwards):
    codes, companions, layout = LAYOUTS[case]
    tensors = refs({**codes, **companions, "plain.weight": "BF16", "plain.bias": "BF16", "q.bias": "F16"})
    found = find_packed(tensors[::-1] if backwards else tensors)
    assert set(found.packed) == set(codes)
    assert set(found.companions) == set(companions)
    (name,) = codes
    packed = found.packed[name]
    assert layout in packed.layout
    assert packed.codes.name == name
    assert {ref.name for ref in packed.companions.values()} <= set(companions)
    assert all(role in ref.name for role, ref in packed.companions.items())
    assert packed.owner == ""


def test_every_layout_is_decoded_or_refused_by_name():
    """Shapes here are 4 x 4 throughout, so those with a shape of their own are refused for that."""
    for codes, companions, _ in LAYOUTS.values():
        (packed,) = find_packed(refs({**codes, **companions})).packed.values()
        try:
            plans = plan_packed(packed, QuantisationConfig())
        except UnsupportedDtypeError as error:
            assert packed.codes.name in str(error)  # noqa: PT017
            assert "m.safetensors" in str(error)  # noqa: PT017
            assert any(form.title in str(error) for form in packed.formats)  # noqa: PT017
        else:
            assert [plan.main.name for plan in plans] == [packed.codes.name]
            assert all(plan.decoder is not None for plan in plans)


@pytest.mark.parametrize(
    ("present", "reported", "missing"),
    [
        ({"q.weight": "F8_E4M3"}, "q.weight", "q.weight_scale_inv or q.weight_scale"),
        ({"q.weight_scale_inv": "F32"}, "q.weight_scale_inv", "q.weight"),
        ({"q.weight_scale": "BF16"}, "q.weight_scale", "q.weight"),
        ({"q.SCB": "F32"}, "q.SCB", "q.weight"),
        ({"q.weight": "I8", "q.weight_format": "U8"}, "q.weight", "q.SCB"),
        ({"q.weight.absmax": "F32"}, "q.weight.absmax", "q.weight"),
        ({"q.weight.quant_state.bitsandbytes__nf4": "U8"}, "q.weight.quant_state.bitsandbytes__nf4", "q.weight"),
        ({"q.weight": "U8", "q.weight.absmax": "F32", "q.weight.quant_map": "F32"}, "q.weight", "q.weight.quant_state"),
        (
            {
                "q.weight": "U8",
                "q.weight.absmax": "U8",
                "q.weight.quant_map": "F32",
                "q.weight.quant_state.bitsandbytes__nf4": "U8",
            },
            "q.weight",
            "q.weight.nested_absmax",
        ),
        ({"q.weight_packed": "I32", "q.weight_scale": "F16"}, "q.weight_packed", "q.weight_shape"),
        ({"q.weight_shape": "I64"}, "q.weight_shape", "q.weight_packed"),
        ({"q.qweight": "I32", "q.scales": "F16"}, "q.qweight", "q.qzeros"),
        ({"experts.up_blocks": "U8"}, "experts.up_blocks", "experts.up_scales"),
        ({"experts.up_scales": "U8"}, "experts.up_scales", "experts.up_blocks"),
    ],
)
def test_a_lost_part_is_reported_with_both_names_and_never_scored(present, reported, missing):
    tensors = [replace(ref, shape=(4, 4, 4)) for ref in refs(present)]
    found = find_packed(tensors)
    assert set(found.packed) == {reported}
    with pytest.raises(UnsupportedDtypeError, match="found in no file of the checkpoint") as caught:
        plan_packed(found.packed[reported], QuantisationConfig("gptq"))
    assert reported in str(caught.value)
    assert missing in str(caught.value)


def test_plain_models_are_left_alone():
    names = [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.experts.gate_up_proj",
        "model.layers.0.mlp.experts.gate_up_proj_bias",
        "model.layers.0.linear_attn.A_log",
        "logit_scale",
        "logit",
        "blocks.0.attn.scale",
        "layer_scale.scales",
        "codebook.codes.weight",
    ]
    found = find_packed(refs(dict.fromkeys(names, "BF16")))
    assert not found.packed
    assert not found.companions


def test_dtypes():
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for name, expected in types.items():
        assert decodable(name)
        require_decodable(refs({"w": name})[0])
        assert storage_dtype(refs({"w": name})[0]) is expected
    for name in ("F8_E4M3", "U8", "F4", "I64", "C64", "BOOL", ""):
        assert not decodable(name)
        with pytest.raises(UnsupportedDtypeError, match=r"tensor 'w' in m.safetensors.*F64, F32, F16, BF16"):
            require_decodable(refs({"w": name})[0])


def test_storage_types_of_codes():
    types = {
        "U8": torch.uint8,
        "I8": torch.int8,
        "I32": torch.int32,
        "F8_E4M3": torch.float8_e4m3fn,
        "F32": torch.float32,
    }
    for name, expected in types.items():
        assert storage_dtype(refs({"w": name})[0]) is expected
    for name in ("F4", "C64", "F8_E4M3FNUZ", ""):
        with pytest.raises(UnsupportedDtypeError, match=r"tensor 'w' in m.safetensors"):
            storage_dtype(refs({"w": name})[0])
