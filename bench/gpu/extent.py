"""Extent rows: one pass over a weight against torch operations."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.gpu.timing import DEVICE, VECTOR_FLOPS, Build, Case, WrongResultError
from spectrum_fast.measure.ops.extent import reference
from spectrum_fast.measure.ops.extent import triton as triton_extent


def extent_builds(rehearse: bool) -> Iterator[Build]:
    """The largest weight of Llama-3.1-70B and an expert of DeepSeek-V3."""
    for m, n in [(8192, 28672), (2048, 7168)]:
        name = f"extent[bfloat16-{m}x{n}]"
        size = (70, 90) if rehearse else (m, n)
        yield Build(name, lambda a=(name, *size): extent_case(*a))


def extent_case(name: str, m: int, n: int) -> Case:
    """Largest entry and sum of squares of one bfloat16 matrix; operands take turns."""
    weights = [
        (torch.randn(m, n, device=DEVICE) * 0.02).to(torch.bfloat16) for _ in range(2 if m * n > 1 << 27 else 10)
    ]

    def check() -> float:
        found, truth = (op.measure(weights[0][None])[0].tolist() for op in (triton_extent, reference))
        error = abs(found[1] / truth[1] - 1)
        if found[0] != truth[0] or not error < 1e-13:
            raise WrongResultError(f"extent {found}, expected {truth}")
        return error

    return Case(
        name,
        "extent",
        check,
        [lambda w=w: triton_extent.measure(w[None]) for w in weights],
        flops=2.0 * m * n,
        bytes=2.0 * m * n,
        flops_per_second=VECTOR_FLOPS[torch.float64],
        peer=[lambda w=w: reference.measure(w[None]) for w in weights],
        peer_name="torch operations in float64, 4 million numbers at a time",
    )
