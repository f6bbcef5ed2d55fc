"""NF4, FP4 and int8 against bitsandbytes itself, on the CPU, bit for bit where it rounds once."""

from __future__ import annotations

import json

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.read.formats.bitsandbytes import read_4bit, read_int8

functional = pytest.importorskip("bitsandbytes.functional")


def quantise(weight: torch.Tensor, kind: str, nested: bool, blocksize: int) -> tuple[dict, torch.Tensor]:
    codes, state = functional.quantize_4bit(weight, blocksize=blocksize, compress_statistics=nested, quant_type=kind)
    parts = {key.partition(".")[0]: value for key, value in state.as_dict(packed=True).items()}
    if weight.numel() % blocksize == 0:
        # Its kernel for the CPU (0.50.2) lets blocks begin anew in every row, which its quantiser and its other
        # kernels do not. With one block a row, all of them agree.
        state.shape = torch.Size((weight.numel() // blocksize, blocksize))
    return {"codes": codes, **parts}, functional.dequantize_4bit(codes, state).reshape(weight.shape)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("shape", "blocksize"), [((128, 192), 64), ((96, 320), 256), ((33, 34), 64)])
def test_4bit(kind, nested, shape, blocksize):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    parts, expected = quantise(weight, kind, nested, blocksize)
    found = decode(read_4bit(**parts))
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert torch.equal(found, expected)
    assert (found - weight).abs().mean() < 0.11  # it is this weight, and no permutation of it


def test_4bit_of_a_bfloat16_weight_is_what_the_library_rounds():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(2)).bfloat16()
    parts, expected = quantise(weight, "nf4", True, 64)
    assert expected.dtype == torch.bfloat16
    assert torch.equal(decode(read_4bit(**parts)).bfloat16(), expected)


def damage(parts: dict, key: str, value: object) -> dict:
    state = json.loads(bytes(parts["quant_state"].tolist()))
    state[key] = value
    if value is None:
        del state[key]
    return parts | {"quant_state": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [64, 126], "codes: expected 4032 elements, found 4096"),
        ("shape", [8192], "expected a matrix"),
        ("shape", [64, -128], r"shape: expected a matrix \[rows, columns\]"),
        ("shape", "64x128", "shape: expected a matrix"),
        ("shape", [10**400, 10**400], r"shape: expected at most 8192 values, as the codes hold, found \[1000.*\.\.\."),
        ("blocksize", 10**400, "blocksize: expected a whole number above 0, of 63 bits, found 1000"),
        ("nested_blocksize", 10**400, "nested_blocksize: expected a whole number"),
        ("nested_offset", 10**400, "nested_offset: expected a number, found 1000"),
        ("nested_offset", float("nan"), "nested_offset: expected a number, found nan"),
        ("shape", None, "shape"),
        ("blocksize", 128, "absmax: expected 64 elements, found 128"),
        ("blocksize", 0, "blocksize"),
        ("blocksize", True, "blocksize"),
        ("quant_type", "int4", "expected nf4 or fp4, found 'int4'"),
        ("nested_blocksize", 16, "nested_absmax: expected 8 elements, found 1"),
        ("nested_offset", "0.1", "nested_offset: expected a number"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(key, value, message):
    parts, _ = quantise(torch.randn(64, 128), "nf4", True, 64)
    with pytest.raises(UnsupportedDtypeError, match=message):
        read_4bit(**damage(parts, key, value))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 60_000, b" " * 70_000])
def test_a_description_that_is_no_json_object_is_refused(raw):
    parts, _ = quantise(torch.randn(64, 128), "nf4", False, 64)
    with pytest.raises(UnsupportedDtypeError, match=r"quant_state|quant_type"):
        read_4bit(**parts | {"quant_state": torch.tensor(list(raw), dtype=torch.uint8)})


@pytest.mark.parametrize("blocksize", [2**30, 2**62])
def test_a_block_larger_than_the_weight_takes_no_memory(blocksize):
    parts, _ = quantise(torch.randn(64, 128), "nf4", True, 64)
    assert torch.equal(decode(read_4bit(**damage(parts, "nested_blocksize", blocksize))), decode(read_4bit(**parts)))


def test_a_key_given_twice_is_refused():
    parts, _ = quantise(torch.randn(64, 128), "nf4", False, 64)
    raw = b'{"quant_type": "nf4", "blocksize": 64, "shape": [64, 128], "shape": [128, 64]}'
    with pytest.raises(UnsupportedDtypeError, match="a key occurs twice"):
        read_4bit(**parts | {"quant_state": torch.tensor(list(raw), dtype=torch.uint8)})


def test_int8():
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(3)).half()
    codes, maxima, _ = functional.int8_vectorwise_quant(weight)
    expected = functional.int8_vectorwise_dequant(codes, maxima)
    found = decode(read_int8(codes, maxima, torch.tensor(0, dtype=torch.uint8)))
    assert torch.allclose(found, expected, rtol=3e-7, atol=0)
    assert (found - weight).abs().max() < 0.03


def test_int8_in_tiles_or_with_other_rows_is_refused():
    codes = torch.zeros(4, 8, dtype=torch.int8)
    with pytest.raises(UnsupportedDtypeError, match=r"expected 0 \(row-major\), found \[2\]"):
        read_int8(codes, torch.ones(4), torch.tensor(2, dtype=torch.uint8))
    with pytest.raises(UnsupportedDtypeError, match="SCB: expected 4 elements, found 8"):
        read_int8(codes, torch.ones(8))


def test_a_description_of_another_type_than_its_name_says_is_refused():
    parts, _ = quantise(torch.randn(64, 128), "nf4", False, 64)
    read_4bit(**parts, kind="nf4")
    with pytest.raises(UnsupportedDtypeError, match="quant_type: expected fp4, found 'nf4'"):
        read_4bit(**parts, kind="fp4")
