"""Decoding quantised weights on the CPU: the compiled kernels against the torch reference, equal to the bit first."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from spectrum_fast.measure.ops.decode import native, reference
from spectrum_fast.read.formats.bitsandbytes import read_4bit
from spectrum_fast.read.formats.codes import Codes
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.pack_quantized import read_pack_quantized
from spectrum_fast.read.formats.scaled import read_scaled

SHAPES = {"full": (4096, 14336), "small": (512, 1792)}


def _bytes(*shape: int) -> Tensor:
    return torch.randint(0, 120, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _fp8(rows: int, columns: int) -> Codes:
    codes = _bytes(rows, columns).view(torch.float8_e4m3fn)
    scale = torch.rand(rows // 128, columns // 128)
    return read_scaled(codes, scale, block=(128, 128))


def _mxfp4(rows: int, columns: int) -> Codes:
    blocks, scale = _bytes(rows, columns // 32, 16), _bytes(rows, columns // 32)
    return read_mxfp4(blocks, scale)


def _nf4(rows: int, columns: int) -> Codes:
    state = {"shape": [rows, columns], "blocksize": 64, "quant_type": "nf4"}
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    codes, maxima, table = _bytes(rows * columns // 2), torch.rand(rows * columns // 64), torch.randn(16)
    return read_4bit(codes, maxima, table, text)


def _int4(rows: int, columns: int) -> Codes:
    words, scale = _bytes(rows, columns // 2).view(torch.int32), torch.rand(rows, columns // 128)
    shape = torch.tensor([rows, columns])
    return read_pack_quantized(words, scale, shape)


FORMATS = {"fp8_blocks": _fp8, "mxfp4": _mxfp4, "nf4": _nf4, "int4_groups": _int4}


@pytest.mark.parametrize("layout", FORMATS)
def test_decode(layout: str, bench_size: str, benchmark: Any) -> None:
    """Seconds a matrix, ours; the reference is timed in turns with it and kept beside it."""
    rows, columns = SHAPES[bench_size]
    codes = FORMATS[layout](rows, columns)
    assert torch.equal(native.decode(codes), reference.decode(codes))
    rounds = 5
    peer = []
    for _ in range(rounds):
        began = time.perf_counter()
        reference.decode(codes)
        peer.append(time.perf_counter() - began)
    benchmark.pedantic(lambda: native.decode(codes), rounds=rounds, warmup_rounds=1)
    median = statistics.median(peer)
    benchmark.extra_info.update(
        shape=[rows, columns],
        reference_seconds=median,
        ratio_to_reference=median / benchmark.stats.stats.median,
        output_bytes_per_second=rows * columns * native.decode(codes).element_size() / benchmark.stats.stats.median,
    )
