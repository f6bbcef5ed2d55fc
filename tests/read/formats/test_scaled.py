"""FP8 and int8 with scales: against the definition in float64, transformers and compressed-tensors."""

from __future__ import annotations

import itertools

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.read.formats.codes import scale_values
from spectrum_fast.read.formats.scaled import read_scaled

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def every_code(dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
    """Codes 0..255 over and over, without those that stand for NaN and infinity."""
    codes = torch.arange(256, dtype=torch.uint8)
    codes = codes[torch.isfinite(codes.view(dtype).float())]
    return codes.repeat(rows * columns // codes.numel() + 1)[: rows * columns].reshape(rows, columns).view(dtype)


def decode_scaled(codes, scale, block, zero_point=None) -> torch.Tensor:
    return decode(read_scaled(codes, scale, zero_point, block=block))


def by_definition(codes, scale, block, zero_point=None) -> torch.Tensor:
    weight = torch.empty(codes.shape, dtype=torch.float64)
    for i, j in itertools.product(range(codes.shape[0]), range(codes.shape[1])):
        place = (i // block[0], j // block[1])
        point = 0.0 if zero_point is None else float(zero_point[place])
        weight[i, j] = (float(codes[i, j]) - point) * float(scale[place])
    return weight


@pytest.mark.parametrize("dtype", FP8)
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((24, 40), (8, 8)),
        ((25, 43), (8, 8)),  # ragged edges
        ((5, 40), (8, 16)),  # one block of rows, cut short
        ((16, 40), (1, 40)),  # one per row
        ((16, 40), (16, 1)),  # one per column
        ((16, 40), (1, 8)),  # groups
        ((16, 41), (1, 8)),
        ((16, 40), (16, 40)),  # one
    ],
)
def test_blocks(dtype, shape, block):
    codes = every_code(dtype, *shape)
    grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
    scale = torch.rand(grid, generator=torch.Generator().manual_seed(0)) + 0.01
    found = decode_scaled(codes, scale, block)
    assert found.dtype == torch.float32
    assert torch.equal(found, by_definition(codes, scale, block).float())


def test_int8_with_zero_points():
    codes = torch.randint(-128, 128, (12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    scale = torch.rand(12, 1) + 0.01
    points = torch.randint(-128, 128, (12, 1), dtype=torch.int8)
    assert torch.equal(
        decode_scaled(codes, scale, (1, 10), points), by_definition(codes, scale, (1, 10), points).float()
    )


def test_scales_that_are_exponents():
    byte = torch.arange(256, dtype=torch.uint8)
    expected = torch.tensor([2.0**e for e in range(-127, 128)], dtype=torch.float64)
    for scale in (byte, byte.view(torch.float8_e8m0fnu)):
        found = scale_values(scale)
        assert torch.equal(found[:255].double(), expected)
        assert found[255].isnan()


def test_a_nan_code_stays_nan():
    codes = torch.tensor([[0x7F, 0x38]], dtype=torch.uint8).view(torch.float8_e4m3fn)
    found = decode_scaled(codes, torch.tensor(2.0), (1, 2))
    assert found[0, 0].isnan()
    assert found[0, 1] == 2.0


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(UnsupportedDtypeError, match=r"expected 2 x 2 scales, found 2 of shape \(2, 1\)"):
        decode_scaled(every_code(FP8[0], 16, 16), torch.ones(2, 1), (8, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.float8_e8m0fnu])
def test_a_gpu_decodes_to_the_same_bits(scale_dtype: torch.dtype) -> None:
    codes = every_code(FP8[0], 300, 200)
    scale = (2.0 ** torch.arange(-3, 3).float()).reshape(3, 2).to(scale_dtype)
    found = decode_scaled(codes.cuda(), scale.cuda(), (128, 128))
    assert torch.equal(found.cpu(), decode_scaled(codes, scale, (128, 128)))


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.float8_e8m0fnu])
def test_transformers_reads_deepseek_blocks_the_same_way(scale_dtype):
    finegrained = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = every_code(FP8[0], 256, 384)
    scale = (torch.rand(2, 3, generator=torch.Generator().manual_seed(4)) + 0.5).to(scale_dtype)
    expected = finegrained.Fp8Dequantize(None)._dequantize_one(codes, scale, output_dtype=torch.float32)
    assert torch.equal(decode_scaled(codes, scale, (128, 128)), expected)


@pytest.mark.parametrize(
    ("strategy", "extra", "block"),
    [
        ("tensor", {}, (64, 96)),
        ("channel", {}, (1, 96)),
        ("group", {"group_size": 32}, (1, 32)),
        ("block", {"block_structure": [16, 32]}, (16, 32)),
    ],
)
@pytest.mark.parametrize("kind", ["float", "int"])
def test_compressed_tensors_reads_them_the_same_way(strategy, extra, block, kind):
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    args = quantization.QuantizationArgs(num_bits=8, type=kind, strategy=strategy, symmetric=True, **extra)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    compressor = compressors.BaseCompressor.get_value_from_registry(f"{kind}-quantized")
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(5))
    grid = (64 // block[0], 96 // block[1])
    scale = torch.rand(grid, generator=torch.Generator().manual_seed(6)) * 0.01 + 0.02
    if strategy == "tensor":
        scale = scale.reshape(1)
    stored = compressor.compress({"weight": weight, "weight_scale": scale}, scheme)
    assert stored["weight"].dtype == (torch.float8_e4m3fn if kind == "float" else torch.int8)
    expected = compressor.decompress(dict(stored), scheme)["weight"]
    assert expected.dtype == torch.float32
    assert torch.equal(decode_scaled(stored["weight"], scale, block), expected)
