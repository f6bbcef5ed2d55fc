"""From packed layouts to plans: block sizes, experts, and refusals that say why."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.read.checkpoint.naming import expert_name, merged_experts_type, module_type
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.config import QuantisationConfig, Scheme, read_quantisation_config
from spectrum_fast.read.formats.planning import plan_packed, plan_plain
from spectrum_fast.read.formats.recognition import find_packed
from spectrum_fast.read.formats.weight_plan import WeightPlan

SIZES = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8}


def ref(name: str, dtype: str, *shape: int, begin: int = 0, file: str = "a.safetensors") -> TensorRef:
    return TensorRef(name, Path(file), dtype, shape, begin, math.prod(shape) * SIZES[dtype])


def plans(*tensors: TensorRef, config: QuantisationConfig | None = None):
    (packed,) = find_packed(tensors).packed.values()
    return plan_packed(packed, config or QuantisationConfig())


def block_of(plan: WeightPlan) -> tuple[int, int]:
    """From what the decoder says of codes of this shape."""
    main, scale = plan.main, plan.companions["scale"]
    assert plan.decoder is not None
    return plan.decoder(torch.zeros(main.shape).to(torch.float8_e4m3fn), scale=torch.ones(scale.shape)).block


def config(**section) -> QuantisationConfig:
    return read_quantisation_config({"quantization_config": section})


@pytest.mark.parametrize(
    ("shape", "scale", "role", "section", "block"),
    [
        ((256, 512), (2, 4), "weight_scale_inv", {}, (128, 128)),
        ((200, 300), (2, 3), "weight_scale_inv", {}, (128, 128)),  # ragged edges
        ((200, 300), (4, 5), "weight_scale_inv", {"weight_block_size": [64, 64]}, (64, 64)),
        ((128, 256), (1, 2), "weight_scale_inv", {"weight_block_size": [128, 128]}, (128, 128)),
        ((256, 512), (), "weight_scale_inv", {}, (256, 512)),
        ((256, 512), (1,), "weight_scale", {}, (256, 512)),
        ((256, 512), (1, 1), "weight_scale", {}, (256, 512)),
        ((256, 512), (256, 1), "weight_scale", {}, (1, 512)),
        ((256, 512), (256, 4), "weight_scale", {}, (1, 128)),
        ((256, 512), (256, 16), "weight_scale", {}, (1, 32)),
        ((200, 300), (2, 3), "weight_scale", {}, (128, 128)),
        # experts in blocks of 1 x 32 in a checkpoint whose configuration names 128 x 128
        ((256, 512), (256, 16), "weight_scale_inv", {"weight_block_size": [128, 128]}, (1, 32)),
    ],
)
def test_blocks_of_fp8(shape, scale, role, section, block):
    (plan,) = plans(
        ref("m.q.weight", "F8_E4M3", *shape),
        ref(f"m.q.{role}", "F32", *scale, file="b.safetensors"),
        config=config(**section),
    )
    assert (plan.name, plan.parameter, plan.matrix_shape) == ("m.q", "m.q.weight", shape)
    assert block_of(plan) == block
    assert plan.companions["scale"].file == Path("b.safetensors")
    assert plan.nbytes == math.prod(shape) + 4 * math.prod(scale)
    assert plan.note.startswith("decoded from FP8")


@pytest.mark.parametrize(
    ("tensors", "section", "message"),
    [
        ([("weight", "F8_E4M3", 200, 300), ("weight_scale_inv", "F32", 3, 3)], {}, "do not fit"),
        ([("weight", "F8_E4M3", 200, 300), ("weight_scale", "F32", 200)], {}, "one number, one per row"),
        ([("weight", "F8_E4M3", 64, 64), ("weight_scale", "I32", 1)], {}, "expected a scale in F32"),
        ([("weight", "BF16", 64, 64), ("weight_scale", "F32", 64, 1)], {}, "a scale .* beside BF16"),
        ([("weight", "I8", 64, 64), ("weight_scale", "F32", 64, 1)], {}, "only where config.json names compressed"),
        ([("weight", "I8", 64, 64), ("weight_scale_inv", "F32", 64, 4)], {"quant_method": "fp8"}, "only where"),
        (
            [("weight", "I8", 64, 64), ("weight_scale", "F32", 64, 1)],
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}},
            r"names \[4\] bits",
        ),
        ([("weight", "F8_E4M3", 9, 9), ("weight_scale", "F32", 1), ("weight_scale_2", "F32", 1)], {}, "NVFP4"),
        ([("weight", "F8_E4M3", 9, 9), ("weight_scale", "F32", 1), ("weight_scale_inv", "F32", 1)], {}, "one scale"),
        ([("weight", "F8_E4M3", 2, 2, 4, 4), ("weight_scale", "F32", 1)], {}, "expected a matrix"),
        ([("weight", "I8", 4, 4), ("SCB", "F32", 8)], {}, "one SCB per row"),
        ([("weight", "F16", 4, 4), ("SCB", "F32", 4)], {}, "expected I8 codes"),
        (
            [("weight_packed", "I32", 4, 4), ("weight_scale", "F16", 4, 1), ("weight_shape", "I64", 2)],
            {"format": "marlin-24"},
            "names format 'marlin-24'",
        ),
        (
            [("weight_packed", "I32", 4, 4), ("weight_scale", "F16", 4, 1), ("weight_shape", "I64", 2)],
            {"config_groups": {"g": {"weights": {"num_bits": 3}}}},
            r"names \[3\] bits",
        ),
        ([("weight_packed", "U8", 4, 4), ("weight_scale", "F8_E4M3", 4, 1)], {}, "expected I32 codes"),
        ([("qweight", "I32", 64, 8), ("scales", "F16", 1, 64), ("qzeros", "I32", 1, 8)], {}, "names no method"),
        (
            [("qweight", "I32", 64, 8), ("scales", "F16", 1, 64), ("qzeros", "I32", 1, 8)],
            {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
            "names format 'marlin', expected gptq or gptq_v2",
        ),
        (
            [("qweight", "I32", 48, 64), ("scales", "F16", 4, 64), ("qzeros", "I32", 4, 6)],
            {"quant_method": "gptq", "bits": 3},
            "do not fit codes of 4 or 8 bits",
        ),
        (
            [("qweight", "I32", 64, 8), ("scales", "F16", 1, 64), ("qzeros", "I32", 1, 8)],
            {"quant_method": "awq", "bits": 4, "version": "gemv"},
            "version gemv",
        ),
        (
            [("qweight", "I32", 64, 8), ("scales", "F16", 3, 64), ("qzeros", "I32", 3, 8)],
            {"quant_method": "awq"},
            "do not divide",
        ),
        (  # the grid of the block that is named, transposed
            [("weight", "F8_E4M3", 256, 512), ("weight_scale_inv", "F32", 4, 2)],
            {"weight_block_size": [128, 128]},
            r"\(4, 2\) do not fit 256 x 512 in blocks of 128x128, which config.json names",
        ),
        ([("weight", "F8_E4M3", 256, 512), ("weight_scale_inv", "F32", 4, 2)], {}, "names no other"),
        (  # that of a larger matrix
            [("weight", "F8_E4M3", 256, 256), ("weight_scale_inv", "F32", 4, 4)],
            {"weight_block_size": [128, 128]},
            "do not fit 256 x 256 in blocks of 128x128",
        ),
        ([("weight", "F8_E4M3", 256, 256), ("weight_scale_inv", "F32", 1, 256)], {}, "do not fit"),
        ([("weight", "F8_E4M3", 64, 128), ("weight_scale", "F32", 64, 128)], {}, "do not fit"),
        (
            [("weight", "F8_E4M3", 256, 256), ("weight_scale_inv", "F32")],
            {"weight_block_size": [128, 128]},
            "do not fit 256 x 256 in blocks of 128x128",
        ),
        (
            [("qweight", "I32", 24, 64), ("scales", "F16", 3, 64), ("qzeros", "I32", 3, 16)],
            {"quant_method": "gptq", "bits": 4, "group_size": 32},
            "found 8 bits in 3 groups of 96 inputs, which config.json does not name",
        ),
        (
            [("qweight", "I32", 12, 64), ("scales", "F16", 6, 64), ("qzeros", "I32", 6, 8)],
            {"quant_method": "gptq", "bits": 4, "group_size": 32},
            "found 4 bits in 6 groups of 96 inputs, which config.json does not name: expected bits 4, group_size 32",
        ),
        (
            [("qweight", "I32", 96, 8), ("scales", "F16", 6, 64), ("qzeros", "I32", 6, 8)],
            {"quant_method": "awq", "bits": 4, "group_size": 32},
            "found 4 bits in 6 groups of 96 inputs, which config.json does not name: expected bits 4, group_size 32",
        ),
        ([("experts.up_blocks", "U8", 2, 8, 3, 16), ("experts.up_scales", "U8", 2, 8, 4)], {}, r"found U8 scales"),
        ([("experts.up_blocks", "U8", 2, 8, 3, 8), ("experts.up_scales", "U8", 2, 8, 3)], {}, r"groups, 16\]"),
    ],
)
def test_refusals_say_why(tensors, section, message):
    stored = [ref(f"m.{name}", dtype, *shape) for name, dtype, *shape in tensors]
    with pytest.raises(UnsupportedDtypeError, match=message) as caught:
        plans(*stored, config=config(**section))
    assert stored[0].name in str(caught.value)
    assert "a.safetensors" in str(caught.value)
    assert "scan the unquantised checkpoint" in str(caught.value)


def test_experts_of_a_plain_tensor_are_read_one_at_a_time():
    stored = ref("model.layers.3.mlp.experts.gate_up_proj", "BF16", 4, 6, 8, begin=1000)
    found = plan_plain(stored)
    assert [plan.name for plan in found] == [f"model.layers.3.mlp.experts.{e}.gate_up_proj" for e in range(4)]
    assert {plan.parameter for plan in found} == {stored.name}
    assert [(plan.main.begin, plan.main.nbytes, plan.main.shape) for plan in found] == [
        (1000 + 96 * e, 96, (6, 8)) for e in range(4)
    ]
    assert {merged_experts_type(module_type(plan.name)) for plan in found} == {"mlp.experts.*.gate_up_proj"}
    assert found[2].note == "expert 2 of model.layers.3.mlp.experts.gate_up_proj"


def test_experts_of_mxfp4():
    found = plans(
        ref("l.0.mlp.experts.down_proj_blocks", "U8", 3, 8, 2, 16, begin=64),
        ref("l.0.mlp.experts.down_proj_scales", "U8", 3, 8, 2, begin=5000, file="b.safetensors"),
    )
    assert [plan.name for plan in found] == [f"l.0.mlp.experts.{e}.down_proj" for e in range(3)]
    assert {plan.parameter for plan in found} == {"l.0.mlp.experts.down_proj"}
    assert [plan.main.begin for plan in found] == [64, 320, 576]
    assert [plan.companions["scales"].begin for plan in found] == [5000, 5016, 5032]
    assert {plan.companions["scales"].shape for plan in found} == {(8, 2)}


@pytest.mark.parametrize(
    ("scale", "block", "cut"),
    [
        ((3, 2, 4), (128, 128), (2, 4)),
        ((3, 1, 512), (256, 1), (1, 512)),
        ((3, 1, 1), (256, 512), (1, 1)),
        ((3,), (256, 512), ()),
        ((), (256, 512), ()),
    ],
)
def test_experts_of_fp8(scale, block, cut):
    found = plans(
        ref("l.0.mlp.experts.gate_up_proj", "F8_E4M3", 3, 256, 512),
        ref("l.0.mlp.experts.gate_up_proj_scale_inv", "F32", *scale),
    )
    assert [block_of(plan) for plan in found] == [block] * 3
    assert {plan.matrix_shape for plan in found} == {(256, 512)}
    assert [plan.companions["scale"].shape for plan in found] == [cut] * 3


def test_more_than_three_extents_are_refused():
    with pytest.raises(UnsupportedDtypeError, match=r"at most 3 extents.*\(2, 2, 4, 4\)"):
        plan_plain(ref("experts.w", "BF16", 2, 2, 4, 4))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("experts.w", "experts.5.w"),
        ("l.0.moe.w1.weight", "l.0.moe.experts.5.w1"),
        ("l.0.experts", "l.0.experts.5.experts"),
        ("l.0.shared_experts.experts.down", "l.0.shared_experts.experts.5.down"),
    ],
)
def test_names_of_experts(parameter, expected):
    assert expert_name(parameter, 5) == expected


def test_modules_of_their_own_width_are_read():
    """GPTQModel's ``dynamic`` names other widths for some modules: then the shapes alone decide."""
    tensors = [ref("m.qweight", "I32", 24, 64), ref("m.scales", "F16", 3, 64), ref("m.qzeros", "I32", 3, 16)]
    section = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (plan,) = plans(*tensors, config=config(**section, dynamic={"+:.*m.*": {"bits": 8}}))
    assert plan.matrix_shape == (64, 96)


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        {},
        {"quantization_config": []},
        {"quantization_config": {"weight_block_size": [0, -1], "bits": True, "quant_method": 3, "config_groups": 7}},
        {"quantization_config": {"weight_block_size": "128", "config_groups": {"a": None, "b": {"weights": 1}}}},
        {"text_config": 5},
    ],
)
def test_a_malformed_configuration_counts_as_unknown(hostile):
    assert read_quantisation_config(hostile) == QuantisationConfig()


def test_configuration_of_compressed_tensors():
    weights = {"num_bits": 8, "block_structure": "64x32"}
    found = read_quantisation_config(
        {
            "text_config": {
                "quantization_config": {
                    "quant_method": "Compressed-Tensors",
                    "format": "float-quantized",
                    "config_groups": {"group_0": {"weights": weights}, "group_1": {"weights": {"num_bits": 4}}},
                }
            }
        }
    )
    schemes = (Scheme(bits=8, block=(64, 32)), Scheme(bits=4))
    assert found == QuantisationConfig("compressed-tensors", "float-quantized", schemes)
