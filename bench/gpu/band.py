"""Band reduction rows, launched one by one and replayed from a graph, against a full eigensolver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bench.gpu.timing import DEVICE, Build, Case, WrongResultError
from spectrum_fast.measure.ops.band import device_kernels, workspace
from spectrum_fast.measure.ops.band import triton as triton_band
from spectrum_fast.measure.ops.sturm import count_below


def band_builds(
    sizes: Sequence[tuple[int, int]], widths: Sequence[int], rehearse: bool, bf16: float
) -> Iterator[Build]:
    """Rows for batches of (count, n), each with and without a graph; the eigensolver runs once a size."""
    for count, n in sizes:
        for b in widths:
            for graph in (False, True):
                copies, order = (min(count, 2), 40) if rehearse else (count, n)
                name = f"band{'-graph' if graph else ''}[b{b}-{f'{count}x' if count > 1 else ''}{n}]"
                half_width = 8 if rehearse else b
                slow = b == 32 and not graph
                yield Build(name, lambda a=(name, copies, order, half_width, graph, slow, bf16): band_case(*a))


TUNED: dict[str, dict[str, Any]] = {
    "columns32-stages2": {"COLUMNS": 32, "num_stages": 2, "maxnreg": None},
    "columns32-stages3": {"COLUMNS": 32, "num_stages": 3, "maxnreg": None},
    "columns16-stages4": {"COLUMNS": 16, "num_stages": 4, "maxnreg": None},
}
"""Other launch options of the sweep, to see whether the ones in use are the best."""
GROUPS = (1, 2, 4, 8)
"""Panels whose updates are applied together."""
TUNED_UPDATE: dict[str, dict[str, Any]] = {
    "tile64-warps4": {"TILE": 64, "num_warps": 4},
    "tile64-warps8": {"TILE": 64, "num_warps": 8},
    "tile128-stages2": {"num_stages": 2},
}
"""The same of their update."""


def sweep_builds(rehearse: bool, bf16: float) -> Iterator[Build]:
    """The batch that sweeps bind, under other launch options; and the one for which updates wait for each other."""
    count, order, b = (2, 40, 8) if rehearse else (64, 2048, 32)
    for label, options in TUNED.items():
        name = f"band-{label}[b32-64x2048]"
        tuned = {"sweep_options": options}
        yield Build(name, lambda a=(name, count, order, b, False, False, bf16, tuned): band_case(*a))
    variants = {f"group{group}": {"group": group} for group in GROUPS}
    variants |= {f"group4-{label}": {"group": 4, "update_options": one} for label, one in TUNED_UPDATE.items()}
    for label, tuned in variants.items():
        count, order, b = (2, 70, 8) if rehearse else (4, 8192, 32)
        name = f"band-{label}[b32-4x8192]"
        yield Build(name, lambda a=(name, count, order, b, False, False, bf16, tuned): band_case(*a))


@contextmanager
def _reducing_with(tuned: dict[str, Any]) -> Iterator[None]:
    """Other launch options of kernels, by the function that gives them; ``group``: panels updated together."""
    kept = {name: getattr(device_kernels, name) for name in tuned if name != "group"}
    panels_together = workspace.panels_together
    for name, options in kept.items():
        setattr(device_kernels, name, lambda *of, a=(options, tuned[name]): a[0](*of) | a[1])
    workspace.panels_together = lambda order: tuned.get("group", panels_together(order))
    try:
        yield
    finally:
        workspace.panels_together = panels_together
        for name, options in kept.items():
            setattr(device_kernels, name, options)


def band_case(
    name: str,
    count: int,
    n: int,
    b: int,
    graph: bool,
    with_peer: bool,
    bf16_rate: float,
    tuned: dict[str, Any] | None = None,
) -> Case:
    """Reduction of ``count`` float32 matrices of order n; with ``graph``, replayed from a CUDA graph.

    The call restores its operand first (4 n² bytes read, 4 n² written: 0.12 ms at n = 8192).
    """
    source = torch.empty(count, n, n, device=DEVICE)
    for index in range(count):
        weight = torch.randn(n, n + n // 4, device=DEVICE) / n**0.5
        source[index] = weight @ weight.T
        source[index] = (source[index] + source[index].T) / 2
    work = torch.empty_like(source)

    def reduce() -> Tensor:
        work.copy_(source)
        with _reducing_with(tuned or {}):
            return triton_band.reduce_to_band(work, b)

    call: Callable[[], Tensor] = reduce
    if graph and DEVICE == "cuda":
        reduce()
        torch.cuda.synchronize()
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            band = reduce()

        def replay() -> Tensor:
            recorded.replay()
            return band

        call = replay

    def check() -> float:
        found, matrix = call()[-1].double(), source[-1].double()
        eps, norm = torch.finfo(torch.float32).eps, float(matrix.norm())
        band_norm = (found[:, 0].square().sum() + 2 * found[:, 1:].square().sum()).sqrt()
        change = max(abs(float(band_norm) / norm - 1), abs(float(found[:, 0].sum() / matrix.diagonal().sum()) - 1))
        if not change < 1000 * eps:
            raise WrongResultError(f"trace or norm changed by {change:.2e}")
        if n > 8192 or not with_peer:
            return change
        truth = torch.linalg.eigvalsh(matrix)
        x = torch.linspace(0.02, 0.98, 64, dtype=torch.float64, device=DEVICE) * truth[-1]
        slack = 20 * eps * norm / n**0.5
        counts = count_below(found[None], x[None])[0]
        low = (truth[None] < (x - slack)[:, None]).sum(1)
        high = (truth[None] <= (x + slack)[:, None]).sum(1)
        wrong = int(((counts < low) | (counts > high)).sum())
        if wrong:
            raise WrongResultError(f"{wrong} of 64 counts are outside what 20 eps ||A||_F / sqrt(n) allows")
        return change

    panels = -(-n // b)
    return Case(
        name,
        "band",
        check,
        [call],
        flops=count * 6.0 * n**3,
        bytes=count * panels * 8.0 * n * n / 3,
        flops_per_second=bf16_rate,
        peer=[lambda: torch.linalg.eigvalsh(source)] if with_peer else (),
        peer_name="torch.linalg.eigvalsh, float32, once",
        rounds=7,
        peer_once=True,
    )
