"""Product rows: what the probes of a Gram matrix ask, against torch operations that widen through memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.gpu.timing import DEVICE, ROTATED_BYTES, VECTOR_FLOPS, Build, Case, WrongResultError
from spectrum_fast.measure.ops.product import reference
from spectrum_fast.measure.ops.product import triton as triton_product
from spectrum_fast.measure.spectra.probes import IN_MEMORY

SHAPES = [(1, 8192, 28672, torch.bfloat16), (64, 2048, 7168, torch.bfloat16), (1, 8192, 8192, torch.float32)]
"""The largest weight of Llama-3.1-70B, a batch of DeepSeek-V3's experts, a Gram matrix."""


def product_builds(rehearse: bool) -> Iterator[Build]:
    """Each shape times its probes, and its transpose."""
    for count, m, n, dtype in SHAPES:
        for transposed in (False, True):
            kind = f"{str(dtype).removeprefix('torch.')}-{f'{count}x' if count > 1 else ''}{m}x{n}"
            name = f"product{'-transposed' if transposed else ''}[{kind}]"
            size = (min(count, 2), m // 64, n // 64) if rehearse else (count, m, n)
            vectors = IN_MEMORY.vectors
            yield Build(name, lambda a=(name, *size, dtype, vectors, transposed): product_case(*a))


def product_case(name: str, count: int, m: int, n: int, dtype: torch.dtype, vectors: int, transposed: bool) -> Case:
    """``count`` matrices m x n with ``vectors`` vectors each; operands take turns."""
    size = float(count) * m * n
    copies = max(1, min(16, -(-ROTATED_BYTES // int(size * dtype.itemsize))))
    weights = [(torch.randn(count, m, n, device=DEVICE) * 0.02).to(dtype) for _ in range(copies)]
    x = torch.randn(count, vectors, m if transposed else n, device=DEVICE, dtype=torch.float64)

    def check() -> float:
        found, truth = (
            form.multiply(weights[0][-1:], x[-1:], transposed=transposed) for form in (triton_product, reference)
        )
        together = triton_product.multiply(weights[0], x, transposed=transposed)[-1:]
        error = max(float((one - truth).norm() / truth.norm()) for one in (found, together))
        if not error < 1e-14:
            raise WrongResultError(f"relative error {error:.1e}, expected below 1e-14")
        return error

    def call(weight: Tensor) -> Tensor:
        return triton_product.multiply(weight, x, transposed=transposed)

    return Case(
        name,
        "product",
        check,
        [lambda w=w: call(w) for w in weights],
        flops=2.0 * size * vectors,
        bytes=size * dtype.itemsize,
        flops_per_second=VECTOR_FLOPS[torch.float64],
        peer=[lambda w=w: reference.multiply(w, x, transposed=transposed) for w in weights],
        peer_name="torch operations in float64, 4 million numbers at a time",
    )
