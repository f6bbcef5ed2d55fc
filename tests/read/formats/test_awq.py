"""AWQ against compressed-tensors, which converts it and then decompresses it."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.read.formats.awq import read_awq


@pytest.mark.parametrize("group", [32, 128])
def test_awq(group):
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    autoawq = pytest.importorskip("compressed_tensors.entrypoints.convert.converters.autoawq")
    generator = torch.Generator().manual_seed(2)
    rows, columns = 128, 48

    def words(height: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31, (height, columns // 8), generator=generator, dtype=torch.int32)

    qweight, qzeros = words(rows), words(rows // group)
    scales = (torch.rand(rows // group, columns, generator=generator) + 0.1).half()
    converter = autoawq.AutoAWQConverter(group_size=group, ignore=())
    converted = converter.process({"m.qweight": qweight, "m.qzeros": qzeros, "m.scales": scales})
    stored = {key.removeprefix("m."): value for key, value in converted.items()}
    stored["weight_scale"] = stored["weight_scale"].float()  # it computes in the scale's type
    compressor = compressors.BaseCompressor.get_value_from_registry("pack-quantized")
    args = quantization.QuantizationArgs(num_bits=4, type="int", strategy="group", symmetric=False, group_size=group)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    expected = compressor.decompress(stored, scheme)["weight"]
    found = decode(read_awq(qweight, scales, qzeros))
    assert found.shape == (columns, rows)
    assert torch.equal(found, expected)
