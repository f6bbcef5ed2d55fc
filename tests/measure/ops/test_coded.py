"""Weights in codes: what is kept so, and that it stands for the weight that decoding gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from spectrum_fast.errors import UnsupportedDtypeError
from spectrum_fast.measure.ops.decode import decode, decode_weight
from spectrum_fast.measure.ops.decode.coded import coded_parts, from_parts
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.mxfp4 import read_mxfp4
from spectrum_fast.read.formats.scaled import read_scaled
from spectrum_fast.read.formats.weight_plan import FusedPart, WeightPlan

GENERATOR = torch.Generator().manual_seed(0)


ANYTHING = TensorRef("w", Path("file"), "F8_E4M3", (1,), 0, 1)


def scaled(block: tuple[int, int], part: FusedPart | None = None) -> WeightPlan:
    return WeightPlan("w", "w.weight", ANYTHING, decoder=partial(read_scaled, block=block), part=part)


MXFP4 = WeightPlan("w", "w", ANYTHING, decoder=read_mxfp4)


def fp8(rows: int, columns: int) -> torch.Tensor:
    return (40 * torch.randn(rows, columns, generator=GENERATOR)).to(torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("block", "scale"),
    [
        ((128, 128), torch.rand(2, 4, generator=GENERATOR)),
        ((128, 128), torch.rand(8, generator=GENERATOR).to(torch.bfloat16)),
        ((128, 128), torch.randint(110, 130, (2, 4), generator=GENERATOR, dtype=torch.uint8)),
        ((200, 420), torch.tensor(0.02)),
    ],
    ids=["blocks", "flat-bfloat16", "powers-of-two", "one"],
)
def test_fp8(block: tuple[int, int], scale: torch.Tensor) -> None:
    codes, how = fp8(200, 420), scaled(block)
    parts = coded_parts(how, codes, {"scale": scale})
    assert parts is not None
    coded = from_parts(*parts)
    assert (coded.shape, coded.device.type) == ((200, 420), "cpu")
    assert torch.equal(decode(coded), decode_weight(how, codes, {"scale": scale}))
    assert parts[0].data_ptr() == coded.codes.data_ptr() == codes.data_ptr()
    assert parts[1].shape == (2, 4)


def test_mxfp4() -> None:
    blocks = torch.randint(0, 256, (40, 3, 16), generator=GENERATOR, dtype=torch.uint8)
    scale = torch.randint(110, 130, (40, 3), generator=GENERATOR, dtype=torch.uint8)
    parts = coded_parts(MXFP4, blocks, {"scales": scale})
    assert parts is not None
    coded = from_parts(*parts)
    assert coded.shape == (40, 96)
    assert torch.equal(decode(coded.to("cpu")), decode_weight(MXFP4, blocks, {"scales": scale}))
    assert (coded.codes.data_ptr(), coded.scale.data_ptr()) == (blocks.data_ptr(), scale.data_ptr())


@pytest.mark.parametrize(
    ("how", "codes", "companions"),
    [
        (scaled((1, 420)), fp8(200, 420), {"scale": torch.ones(200)}),
        (scaled((128, 128)), fp8(200, 420).to(torch.float8_e5m2), {"scale": torch.ones(2, 4)}),
        (scaled((128, 128)), fp8(20, 42), {"scale": torch.ones(1, 1), "zero_point": torch.ones(1, 1)}),
        (scaled((128, 128), FusedPart("q", 0, 1, 0, 10, 20)), fp8(20, 42), {"scale": torch.ones(1, 1)}),
        (WeightPlan("w", "w.weight", ANYTHING), torch.ones(4, 4), {}),
    ],
    ids=["rows", "e5m2", "zero-points", "part", "plain"],
)
def test_everything_else_is_decoded(how: WeightPlan, codes: torch.Tensor, companions: dict[str, torch.Tensor]) -> None:
    assert coded_parts(how, codes, companions) is None


def test_scales_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnsupportedDtypeError, match="expected 2 x 4 scales, found 12"):
        coded_parts(scaled((128, 128)), fp8(200, 420), {"scale": torch.ones(3, 4)})
