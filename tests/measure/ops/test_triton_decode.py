"""The Triton decoders against the torch reference, to the bit: in the interpreter, and on a GPU where there is one."""

from __future__ import annotations

import json

import pytest
import torch

from spectrum_fast.errors import BackendUnavailableError
from spectrum_fast.measure.ops.decode import decode, reference
from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.read.formats.bitsandbytes import read_4bit
from spectrum_fast.read.formats.mxfp4 import read_mxfp4

from support.interpreter import on_both, outside_the_interpreter

triton_decode = pytest.importorskip("spectrum_fast.measure.ops.decode.triton")


@outside_the_interpreter
def test_cpu_tensors_are_refused() -> None:
    codes = read_mxfp4(torch.zeros(1, 1, 16, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.uint8))
    with use_backend("triton"), pytest.raises(BackendUnavailableError, match="'triton' runs on cuda"):
        decode(codes)


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


@on_both
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (7, 3), (16, 16), (33, 13)])
def test_mxfp4(rows: int, groups: int, device: str) -> None:
    blocks = random_bytes(rows, groups, 16)
    scale = torch.arange(rows * groups).remainder(255).to(torch.uint8).view(rows, groups)
    found = triton_decode.decode(read_mxfp4(blocks.to(device), scale.to(device)))
    expected = reference.decode(read_mxfp4(blocks, scale))
    assert torch.equal(found.cpu().view(torch.int16), expected.view(torch.int16))


@on_both
@pytest.mark.parametrize(("rows", "columns", "blocksize"), [(3, 5, 64), (7, 29, 64), (40, 128, 64), (64, 96, 256)])
def test_nf4(rows: int, columns: int, blocksize: int, device: str) -> None:
    size = rows * columns
    codes = random_bytes(-(-size // 2))
    table = torch.randn(16, generator=torch.Generator().manual_seed(1))
    maxima = torch.rand(-(-size // blocksize), generator=torch.Generator().manual_seed(2))
    state = {"shape": [rows, columns], "blocksize": blocksize, "quant_type": "nf4"}
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    found = triton_decode.decode(read_4bit(*(part.to(device) for part in (codes, maxima, table)), text))
    expected = reference.decode(read_4bit(codes, maxima, table, text))
    assert torch.equal(found.cpu().view(torch.int32), expected.view(torch.int32))
