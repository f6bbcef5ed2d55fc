"""Slicing rows: counts and log-determinants of bands whose eigenvalues are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench.gpu.timing import DEVICE, VECTOR_FLOPS, Build, Case, WrongResultError
from spectrum_fast.measure.ops.sturm import Bands
from spectrum_fast.measure.ops.sturm import triton as triton_sturm

MANY = (528, 1056, 1848)
"""One, two and three and a half warps for each scheduler: how long a round takes decides how many shifts it should have
(``FIXED`` in spectra/schedule.py)."""


def sturm_builds(dtypes: Sequence[torch.dtype], rehearse: bool) -> Iterator[Build]:
    """A row for each operation, half-width and batch, of 64 shifts a matrix."""
    for dtype in dtypes:
        for kind in ("count_below", "log_abs_det"):
            for b in (32, 64):
                for matrices, n in [(1, 8192), (64, 2048), (8, 8192), (1, 2048)]:
                    name = f"{kind}[b{b}-{matrices}x{n}-{str(dtype)[6:]}]"
                    size = (max(matrices // 32, 1), 20, 3) if rehearse else (matrices, n, 64)
                    yield Build(name, lambda a=(name, kind, b, dtype, *size): sturm_case(*a))


def shift_builds(rehearse: bool) -> Iterator[Build]:
    """How the time of a round grows with its shifts."""
    for kind, counts in (("count_below", MANY), ("log_abs_det", (211, 422))):
        for shifts in counts:
            name = f"{kind}[b32-1x8192-float64-{shifts}]"
            size = (1, 20, 3) if rehearse else (1, 8192, shifts)
            yield Build(name, lambda a=(name, kind, 32, torch.float64, *size): sturm_case(*a))


def sturm_case(name: str, kind: str, b: int, dtype: torch.dtype, matrices: int, n: int, shifts: int) -> Case:
    """``shifts`` shifts of each of ``matrices`` random bands of order n."""
    bands = torch.randn(matrices, n, b + 1, dtype=torch.float64, device=DEVICE)
    bands[:, :, 0] += 4 * b**0.5
    # Decoupled blocks: the truth of a long band is that of its blocks.
    block = min(n, 512)
    row = torch.arange(n, device=DEVICE)[:, None] % block + torch.arange(b + 1, device=DEVICE)
    bands.masked_fill_(row >= block, 0)
    bands = bands.to(dtype)
    reach = 4 * b**0.5
    x = torch.linspace(-0.5 * reach, 2.5 * reach, shifts, dtype=torch.float64, device=DEVICE).expand(matrices, -1)
    z = torch.complex(x, torch.full_like(x, 1.0))
    prepared = Bands(bands)
    counting = kind == "count_below"

    def call() -> Tensor:
        return triton_sturm.count_below(prepared, x) if counting else triton_sturm.log_abs_det(prepared, z)

    def check() -> float:
        found = call()[-1].cpu()
        eps = torch.finfo(dtype).eps
        truth = torch.cat([_block_eigenvalues(part) for part in bands[-1].split(block)]).cpu()
        if counting:
            slack = 1e3 * n * eps * float(bands.abs().max())
            low = (truth < (x[-1].cpu() - slack)[:, None]).sum(1)
            high = (truth <= (x[-1].cpu() + slack)[:, None]).sum(1)
            wrong = int(((found < low) | (found > high)).sum())
            if wrong:
                raise WrongResultError(f"{wrong} of {shifts} counts are outside what rounding allows")
            return float((found - (truth < x[-1].cpu()[:, None]).sum(1)).abs().max())
        expected = (truth - z[-1].cpu()[:, None]).abs().log().sum(1)
        error = float((found - expected).abs().max())
        if not error < 1e3 * n * eps * float(bands.abs().max()):
            raise WrongResultError(f"absolute error {error:.2e} of a log-determinant of order {n}")
        return error

    flops = float(matrices) * shifts * n * b * b * (1 if counting else 4)
    return Case(
        name,
        "sturm",
        check,
        [call],
        flops=flops,
        bytes=float(prepared.scaled.rows.nbytes),
        flops_per_second=VECTOR_FLOPS[dtype],
    )


def _block_eigenvalues(band: Tensor) -> Tensor:
    """Float64 eigenvalues of one band matrix, by LAPACK or cuSOLVER on the dense matrix."""
    n, width = band.shape
    dense = torch.zeros(n, n, dtype=torch.float64, device=band.device)
    for d in range(min(width, n)):
        dense.diagonal(-d).copy_(band[: n - d, d].double())
        dense.diagonal(d).copy_(band[: n - d, d].double())
    return torch.linalg.eigvalsh(dense)
