"""MXFP4 against transformers' own reading of gpt-oss and against the number format itself."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.read.formats.mxfp4 import E2M1, read_mxfp4


def random_blocks(experts: int, rows: int, groups: int, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (experts, rows, groups, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(low, high, (experts, rows, groups), generator=generator, dtype=torch.uint8)
    return blocks, scales


def test_transformers_reads_them_the_same_way_but_transposed():
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks, scales = random_blocks(3, 40, 5, 100, 140)
    expected = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16).cpu()
    for expert in range(3):
        found = decode(read_mxfp4(blocks[expert], scales[expert]))
        assert found.dtype == torch.bfloat16
        assert found.shape == (40, 160)
        assert torch.equal(found.T, expected[expert])


def test_exact_over_all_exponents():
    """2^-128 to 6 * 2^124: everything that a bfloat16 can hold, subnormal numbers too."""
    blocks, scales = random_blocks(1, 252, 1, 0, 252)
    scales[0, :, 0] = torch.arange(252, dtype=torch.uint8)
    found = decode(read_mxfp4(blocks[0], scales[0])).double()
    nibbles = torch.stack((blocks[0, :, 0] & 15, blocks[0, :, 0] >> 4), dim=-1).reshape(252, 32)
    expected = torch.tensor(E2M1, dtype=torch.float64)[nibbles.long()] * torch.ldexp(
        torch.ones(252, 1, dtype=torch.float64), scales[0].double() - 127
    )
    assert torch.equal(found, expected)


def test_the_value_that_means_nan():
    blocks, scales = random_blocks(1, 2, 1, 127, 128)
    scales[0, 1] = 255
    found = decode(read_mxfp4(blocks[0], scales[0]))
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
