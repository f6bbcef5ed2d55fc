"""The compiled decoders: equal to the torch reference to the bit, under every instruction set."""

from __future__ import annotations

import json

import pytest
import torch

from spectrum_fast.measure.ops.decode import decode, reference
from spectrum_fast.read.formats.awq import read_awq
from spectrum_fast.read.formats.bitsandbytes import read_4bit, read_int8
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.gptq import read_gptq
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.pack_quantized import read_pack_quantized
from spectrum_fast.read.formats.scaled import read_scaled

from support import instruction_sets

native = pytest.importorskip("spectrum_fast.measure.ops.decode.native")


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same shape, type and bits; any NaN equals any other."""
    kind = torch.int16 if a.dtype == torch.bfloat16 else torch.int32
    same = a.view(kind) == b.view(kind)
    return a.shape == b.shape and a.dtype == b.dtype and bool((same | (a.isnan() & b.isnan())).all())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def codes_of(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded()).view(dtype)


def scaled(dtype: torch.dtype, shape: tuple[int, int], block: tuple[int, int], *, zeros: bool = False) -> Codes:
    grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
    scale = torch.randn(grid, generator=seeded())
    points = torch.randint(-128, 128, grid, dtype=torch.int8, generator=seeded()) if zeros else None
    return read_scaled(codes_of(shape, dtype), scale, points, block=block)


def mxfp4(rows: int, groups: int) -> Codes:
    scale = torch.arange(rows * groups).remainder(256).to(torch.uint8).view(rows, groups)
    return read_mxfp4(codes_of((rows, groups, 16)), scale)


def four_bit(rows: int, columns: int, blocksize: int) -> Codes:
    size = rows * columns
    state = {"shape": [rows, columns], "blocksize": blocksize, "quant_type": "nf4"}
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    maxima, table = torch.rand(-(-size // blocksize), generator=seeded()), torch.randn(16, generator=seeded())
    return read_4bit(codes_of((-(-size // 2),)), maxima, table, text)


def packed(
    bits: int, rows: int, columns: int, groups: int, *, zeros: bool = False, shared: bool = False, index: bool = False
) -> Codes:
    words = codes_of((rows, 4 * -(-columns * bits // 32))).view(torch.int32)
    scale = torch.randn(1 if shared else rows, groups, generator=seeded())
    points = codes_of((-(-rows * bits // 32), 4 * groups)).view(torch.int32) if zeros else None
    order = torch.randint(0, groups, (columns,), generator=seeded()) if index else None
    shape = torch.tensor([rows, columns])
    return read_pack_quantized(words, scale, shape, points, order)


def words(rows: int, columns: int) -> torch.Tensor:
    return codes_of((rows, 4 * columns)).view(torch.int32)


def gptq(bits: int, inputs: int, outputs: int, groups: int, *, index: bool = False) -> Codes:
    codes, zeros = words(inputs * bits // 32, outputs), words(groups, outputs * bits // 32)
    order = torch.randint(0, groups, (inputs,), generator=seeded()) if index else None
    return read_gptq(codes, torch.randn(groups, outputs, generator=seeded()), zeros, order, stored_less_one=False)


CASES: dict[str, Codes] = {
    "e4m3 blocks, ragged": scaled(torch.float8_e4m3fn, (200, 300), (128, 128)),
    "e4m3 rows": scaled(torch.float8_e4m3fn, (33, 77), (1, 77)),
    "e4m3 one scale": scaled(torch.float8_e4m3fn, (5, 16), (5, 16)),
    "e5m2 groups": scaled(torch.float8_e5m2, (40, 64), (1, 32)),
    "int8 rows": scaled(torch.int8, (31, 45), (1, 45)),
    "int8 zero points": scaled(torch.int8, (31, 48), (1, 16), zeros=True),
    "int8 of bitsandbytes": read_int8(codes_of((19, 53), torch.int8), torch.rand(19, generator=seeded())),
    "mxfp4, every scale": mxfp4(16, 16),
    "mxfp4, one group": mxfp4(1, 1),
    "nf4": four_bit(40, 64, 64),
    "nf4, cut blocks": four_bit(7, 29, 64),
    "nf4, one short block": four_bit(3, 5, 64),
    "int4 groups": packed(4, 24, 128, 4),
    "int4, columns cut within a word": packed(4, 9, 30, 3),
    "int4 zero points": packed(4, 24, 128, 4, zeros=True),
    "int4 shared scales": packed(4, 24, 128, 4, shared=True),
    "int4 shared scales, zero points": packed(4, 24, 128, 4, shared=True, zeros=True),
    "int4, groups of odd length": packed(4, 8, 45, 3),
    "int4 group index": packed(4, 8, 48, 3, index=True),
    "int8 packed": packed(8, 10, 33, 3, zeros=True),
    "awq": read_awq(words(48, 4), torch.randn(3, 32, generator=seeded()), words(3, 4)),
    "gptq int4": gptq(4, 48, 32, 3),
    "gptq int8": gptq(8, 48, 32, 3),
    "gptq, any order": gptq(4, 48, 32, 3, index=True),
    "int8 packed, shared": packed(8, 10, 32, 2, shared=True),
}


def differing() -> list[str]:
    """Names of the cases that are not equal to the bit here; also run in processes of capped instruction sets."""
    return [name for name, codes in CASES.items() if not equal_bits(native.decode(codes), reference.decode(codes))]


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_reference_to_the_bit(case):
    assert equal_bits(native.decode(CASES[case]), reference.decode(CASES[case]))
    assert equal_bits(decode(CASES[case]), reference.decode(CASES[case]))


@pytest.mark.parametrize(("level", "feature"), [("portable", None), ("avx2", "avx2_fma"), ("avx512", "avx512")])
def test_equal_under_every_instruction_set(level, feature):
    assert instruction_sets.run_at_level(level, feature, "decode_at_level") == [level, []]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 3}, "rows \\* columns elements"),
        ({"table": torch.zeros(255)}, "table of 256"),
        ({"scales": torch.zeros(3)}, "a scale for each block"),
        ({"zeros": torch.zeros(3)}, "zeros: expected one for each block"),
        ({"block_rows": 0}, "at least 1"),
        ({"out": torch.zeros(7)}, "rows \\* columns elements"),
    ],
)
def test_the_border_refuses_what_does_not_fit(arguments, message):
    from spectrum_fast import _native

    good = {
        "codes": torch.zeros(8, dtype=torch.uint8),
        "rows": 2,
        "columns": 4,
        "table": torch.zeros(256),
        "scales": torch.zeros(2),
        "zeros": None,
        "block_rows": 1,
        "block_columns": 4,
        "out": torch.zeros(8),
    }
    _native.decode_scaled(**good)
    with pytest.raises(ValueError, match=message):
        _native.decode_scaled(**{**good, **arguments})
