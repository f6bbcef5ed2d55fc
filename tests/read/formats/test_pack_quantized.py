"""Packed integers against the decompressor of compressed-tensors."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.read.formats.config import read_quantisation_config
from spectrum_fast.read.formats.pack_quantized import read_pack_quantized

compressors = pytest.importorskip("compressed_tensors.compressors")
quantization = pytest.importorskip("compressed_tensors.quantization")


def scheme(bits: int, strategy: str, symmetric: bool, group: int | None):
    args = quantization.QuantizationArgs(
        num_bits=bits, type="int", strategy=strategy, symmetric=symmetric, group_size=group
    )
    return quantization.QuantizationScheme(targets=["Linear"], weights=args)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("strategy", "group", "shape"),
    [("group", 32, (48, 96)), ("group", 32, (50, 96)), ("channel", None, (50, 93)), ("channel", None, (9, 17))],
)
def test_pack_quantized(bits, symmetric, strategy, group, shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    groups = shape[1] // group if group else 1
    scale = (torch.rand(shape[0], groups, generator=generator) + 0.5) * 4 / 2**bits
    stored = {"weight": weight, "weight_scale": scale}
    if not symmetric:
        half = 1 << (bits - 1)
        stored["weight_zero_point"] = torch.randint(-half, half, scale.shape, generator=generator, dtype=torch.int8)
    compressor = compressors.BaseCompressor.get_value_from_registry("pack-quantized")
    plan = scheme(bits, strategy, symmetric, group)
    stored = compressor.compress(stored, plan)
    expected = compressor.decompress(dict(stored), plan)["weight"]
    codes = read_pack_quantized(stored["weight_packed"], scale, stored["weight_shape"], stored.get("weight_zero_point"))
    found = decode(codes)
    assert torch.equal(found, expected)
    assert found.is_contiguous()


def test_groups_by_index():
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(-8, 8, (16, 64), generator=generator, dtype=torch.int8)
    scale = torch.rand(16, 2, generator=generator) + 0.1
    index = torch.randperm(64, generator=generator) % 2
    packed = compressors.pack_quantized.helpers.pack_to_int32(codes, 4)
    found = decode(read_pack_quantized(packed, scale, torch.tensor([16, 64]), None, index.to(torch.int32)))
    assert torch.equal(found, codes.float() * scale[:, index])
    unused = torch.full((64,), -1, dtype=torch.int32)
    found = decode(read_pack_quantized(packed, scale, torch.tensor([16, 64]), None, unused))
    assert torch.equal(found, codes.float() * scale.repeat_interleave(32, dim=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_shape": torch.tensor([16, 56])}, "expected words"),
        ({"weight_shape": torch.tensor([15, 64])}, r"found \(16, 8\)"),
        ({"weight_shape": torch.tensor([16, 0])}, "expected words"),
        ({"weight_scale": torch.ones(8, 2)}, "expected scales"),
        ({"weight_scale": torch.ones(16, 3)}, "3 groups do not divide"),
        ({"weight_zero_point": torch.zeros(3, 2, dtype=torch.int32)}, "zero points"),
        ({"weight_g_idx": torch.full((64,), 2, dtype=torch.int32)}, "g_idx: expected 64 groups below 2"),
        ({"weight_g_idx": torch.zeros(63, dtype=torch.int32)}, "g_idx: expected 64 groups below 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    parts = {
        "codes": torch.zeros(16, 8, dtype=torch.int32),
        "weight_scale": torch.ones(16, 2),
        "weight_shape": torch.tensor([16, 64]),
    }
    with pytest.raises(UnsupportedDtypeError, match=message):
        read_pack_quantized(**parts | change)


@pytest.mark.parametrize(
    ("said", "change", "message"),
    [
        ({"num_bits": 8}, {}, "found 4 bits in 2 groups of 64 inputs, no zero points"),
        ({"num_bits": 4, "group_size": 16, "strategy": "group"}, {}, "config.json does not name: .*group_size 16"),
        ({"num_bits": 4, "strategy": "channel"}, {}, "strategy channel"),
        ({"symmetric": False}, {}, "no zero points"),
        ({"symmetric": True}, {"weight_zero_point": torch.zeros(2, 2, dtype=torch.int32)}, "with zero points"),
        ({"type": "float"}, {}, "kind float"),
    ],
)
def test_what_the_configuration_does_not_name_is_refused(said, change, message):
    config = read_quantisation_config({"quantization_config": {"config_groups": {"g": {"weights": said}}}})
    parts = {
        "codes": torch.zeros(16, 8, dtype=torch.int32),
        "weight_scale": torch.ones(16, 2),
        "weight_shape": torch.tensor([16, 64]),
    }
    read_pack_quantized(**parts | change)
    with pytest.raises(UnsupportedDtypeError, match=message):
        read_pack_quantized(**parts | change, schemes=config.schemes)
