"""Gram rows: symmetric kernel against the full product of torch, in time and in accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.gpu.timing import DEVICE, ROTATED_BYTES, Build, Case, WrongResultError
from spectrum_fast.measure.ops.gram import triton as triton_gram

PEER_COPIES = 16
"""Matrices of a batch that the peer dequantises at a time: all at once take 64 GB."""
SHAPES = [(1, 8192, 28672), (1, 8192, 8192), (256, 2048, 7168), (1, 1024, 8192)]
TUNED = {
    "depth64": {"DEPTH": 64, "num_stages": 3},
    "depth64-stages4": {"DEPTH": 64, "num_stages": 4},
    "stages2": {"num_stages": 2},
}
"""Other launch options for bfloat16, to see whether the ones in use are the best."""


def gram_builds(kinds: Sequence[str], rehearse: bool, bf16_rate: float) -> Iterator[Build]:
    """A row for each shape and each of the kinds bfloat16, float32, fp8."""
    shrink = 64 if rehearse else 1
    for kind in kinds:
        for batch, m, n in SHAPES:
            if kind == "float32" and batch > 1:
                continue
            size = (max(batch // shrink, 1), m // shrink, n // shrink)
            name = f"gram[{kind}-{f'{batch}x' if batch > 1 else ''}{m}x{n}]"
            yield Build(name, lambda a=(name, kind, *size): gram_case(*a, bf16_rate))


def tuning_builds(rehearse: bool, bf16_rate: float) -> Iterator[Build]:
    """One shape under other launch options."""
    side = 128 if rehearse else 8192
    for label, options in TUNED.items():
        name = f"gram-{label}[bfloat16-8192x8192]"
        yield Build(name, lambda a=(name, options): gram_case(a[0], "bfloat16", 1, side, side, bf16_rate, a[1]))


def gram_case(
    name: str, kind: str, count: int, m: int, n: int, bf16_rate: float, tuned: dict[str, Any] | None = None
) -> Case:
    """Gram of ``count`` matrices m x n."""
    itemsize = {"bfloat16": 2, "float32": 4, "fp8": 1}[kind]
    copies = max(1, min(16, -(-ROTATED_BYTES // (count * m * n * itemsize))))
    short, long = min(m, n), max(m, n)
    weights = [_weight(kind, count, m, n) for _ in range(copies)]
    blocks = (count, -(-m // 128), -(-n // 128))
    scales = torch.rand(blocks, device=DEVICE) * 1e-3 + 1e-4

    info: dict[str, float] = {}

    def call(weight: Tensor) -> Tensor:
        if tuned:
            out = torch.empty(count, short, short, dtype=torch.float32, device=DEVICE)
            triton_gram.launch_gram(weight if m <= n else weight.mT, out, **tuned)
            return out
        return (
            triton_gram.gram_block_scaled(weight.view(torch.uint8), scales)
            if kind == "fp8"
            else triton_gram.gram(weight)
        )

    def widened(weight: Tensor, index: int) -> Tensor:
        w = weight[index].double()
        if kind == "fp8":
            w = w * scales[index].double().repeat_interleave(128, 0)[:m].repeat_interleave(128, 1)[:, :n]
        return w if m <= n else w.T

    def check() -> float:
        found = call(weights[0])
        index = count - 1
        wide = widened(weights[0], index)
        some = torch.randperm(short, device=DEVICE)[:257]
        truth = wide[some] @ wide.T
        error = float(torch.linalg.norm(found[index][some].double() - truth) / torch.linalg.norm(truth))
        limit = 4e-6 if kind == "float32" else 5e-7
        if not error < limit or not torch.equal(found, found.mT):
            raise WrongResultError(f"relative error {error:.2e}, expected below {limit} and a symmetric result")
        del found
        peer = full_product(weights[0])[index] if not tuned and count == 1 else None
        if peer is not None:  # kept, never required: one long sum in the tensor cores shrinks
            info["peer_error"] = float(torch.linalg.norm(peer.view(short, short)[some].double() - truth))
            info["peer_error"] /= float(torch.linalg.norm(truth))
        return error

    def full_product(weight: Tensor) -> Tensor:
        w = weight
        if kind == "fp8":
            parts = zip(w.split(PEER_COPIES), scales.split(PEER_COPIES), strict=True)
            w = torch.cat([(p.to(torch.bfloat16).float() * _spread(s, m, n)).to(torch.bfloat16) for p, s in parts])
        w = w if m <= n else w.mT
        if kind == "float32" or DEVICE == "cpu":
            return torch.bmm(w.float(), w.mT.float())
        if count == 1:
            return torch.mm(w[0], w[0].T, out_dtype=torch.float32)[None]
        return torch.bmm(w, w.mT, out_dtype=torch.float32)

    peer_name = {
        "bfloat16": "torch mm(out_dtype=float32), full product",
        "float32": "torch float32 mm (no TF32), full product",
        "fp8": "dequantised to a bf16 copy (rounded), then mm(out_dtype=float32)",
    }[kind]
    return Case(
        name,
        "gram",
        check,
        [lambda w=w: call(w) for w in weights],
        flops=float(count) * short * (short + 1) * long * (3 if kind == "float32" else 1),
        bytes=float(count) * (short * long * itemsize + 4 * short * short),
        flops_per_second=bf16_rate,
        peer=[lambda w=w: full_product(w) for w in weights] if not tuned else (),
        peer_name=peer_name,
        info=info,
    )


def _weight(kind: str, count: int, m: int, n: int) -> Tensor:
    """Random weights (count, m, n), made one matrix at a time so that no wide copy of a batch exists."""
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32, "fp8": torch.float8_e4m3fn}[kind]
    out = torch.empty(count, m, n, dtype=dtype, device=DEVICE)
    for index in range(count):
        values = torch.randn(m, n, device=DEVICE)
        out[index] = (values * 40).clamp(-448, 448).to(dtype) if kind == "fp8" else (values * 0.02).to(dtype)
    return out


def _spread(scales: Tensor, m: int, n: int) -> Tensor:
    return scales.repeat_interleave(128, -2)[:, :m].repeat_interleave(128, -1)[:, :, :n]
