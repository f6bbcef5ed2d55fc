"""NF4's bytes against the tensors that bitsandbytes makes."""

from __future__ import annotations

import pytest
import torch

from spectrum_fast.choose.planner.states import nf4_bytes


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (176, 64), (30, 34), (1024, 512)])
def test_bytes_are_those_of_bitsandbytes(shape: tuple[int, int], double: bool) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    parts = [state.absmax, state.code]
    if double:
        parts += [state.offset, state.state2.absmax, state.state2.code]
    sizes = [sum(one.numel() * one.element_size() for one in some) for some in ([codes], parts)]
    assert nf4_bytes(weight.numel(), double) == tuple(sizes)
