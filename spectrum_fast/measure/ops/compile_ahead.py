"""Compile the engine's kernels for a GPU beside each other, before the first weight asks for them.

A kernel takes two to three seconds and a first scan needs some forty: one after the other that is longer than a large
model takes to read. A small launch of each does it, since what a kernel is compiled for depends on types, widths and
divisibility by 16 and not on sizes. Threads are enough: nearly all of that time Triton is in LLVM or in its assembler,
without Python's lock. What was compiled is in Triton's cache on disk, where a second scan finds it.

``python -m spectrum_fast.measure.ops.compile_ahead`` compiles all there are, as for an image of a machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import torch

from spectrum_fast.system import usable_cores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _gram(dtype: torch.dtype) -> None:
    from spectrum_fast.measure.ops.gram import triton as triton_gram

    for shape in ((256, 512), (512, 256), (250, 391), (391, 250)):
        triton_gram.gram(torch.randn(1, *shape, device=DEVICE).to(dtype))


def _gram_fp8() -> None:
    from spectrum_fast.measure.ops.gram import triton_codes

    for shape in ((256, 512), (512, 256)):
        codes = torch.randn(1, *shape, device=DEVICE).to(torch.float8_e4m3fn)
        triton_codes.gram_block_scaled(codes, torch.ones(1, -(-shape[0] // 128), -(-shape[1] // 128), device=DEVICE))


def _extent_fp8() -> None:
    from spectrum_fast.measure.ops.extent import triton_codes

    for shape in ((256, 512), (250, 391)):
        codes = torch.zeros(1, *shape, device=DEVICE, dtype=torch.uint8)
        triton_codes.measure_block_scaled(codes, torch.ones(1, -(-shape[0] // 128), -(-shape[1] // 128), device=DEVICE))


def _band(dtype: torch.dtype, half_width: int, order: int) -> None:
    from spectrum_fast.measure.ops.band import CARRIED
    from spectrum_fast.measure.ops.band import triton as triton_band

    matrix = torch.randn(1, order, order, device=DEVICE, dtype=dtype)
    carried = torch.zeros(1, CARRIED, order, device=DEVICE, dtype=torch.float64) if dtype == torch.float32 else None
    for group in (1, 2):  # as small matrices are updated, and as large ones
        triton_band.reduce_in_groups(matrix + matrix.mT, half_width, carried, group)


def _sturm(dtype: torch.dtype, half_width: int) -> None:
    from spectrum_fast.measure.ops.sturm import triton as triton_sturm

    bands = triton_sturm.prepare(torch.randn(1, 80, half_width + 1, device=DEVICE, dtype=dtype))
    x = torch.zeros(1, 3, dtype=torch.float64, device=DEVICE)
    triton_sturm.count_below(bands, x)
    triton_sturm.log_det(bands, torch.complex(x, x + 1))


def _product() -> None:
    from spectrum_fast.measure.ops.product import triton as triton_product

    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for rows, columns in ((256, 512), (250, 391)):
            weight = torch.zeros(1, rows, columns, device=DEVICE, dtype=dtype)
            for transposed in (False, True):
                x = torch.zeros(1, 4, rows if transposed else columns, device=DEVICE, dtype=torch.float64)
                triton_product.multiply(weight, x, transposed=transposed)


def _product_fp8() -> None:
    from spectrum_fast.measure.ops.product import triton as triton_product

    for rows, columns in ((256, 512), (512, 256)):
        codes = torch.zeros(1, rows, columns, device=DEVICE, dtype=torch.uint8)
        scales = torch.ones(1, rows // 128, columns // 128, device=DEVICE)
        for transposed in (False, True):
            x = torch.zeros(1, 4, rows if transposed else columns, device=DEVICE, dtype=torch.float64)
            triton_product.multiply_block_scaled(codes, scales, x, transposed=transposed)


def _extent() -> None:
    from spectrum_fast.measure.ops.extent import triton as triton_extent

    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for side in (11, 16):
            triton_extent.measure(torch.ones(1, 9, side, device=DEVICE, dtype=dtype))


def _complex_logarithm() -> None:
    """Torch compiles this one itself, when it is first asked for."""
    torch.log(torch.ones(4, dtype=torch.complex128, device=DEVICE))


JOBS: dict[str, Callable[[], None]] = {
    "gram-bfloat16": lambda: _gram(torch.bfloat16),
    "gram-float32": lambda: _gram(torch.float32),
    "gram-float16": lambda: _gram(torch.float16),
    "gram-fp8": _gram_fp8,
    "band-32": lambda: _band(torch.float32, 32, 256),
    "band-32-odd": lambda: _band(torch.float32, 32, 250),
    "band-64": lambda: _band(torch.float32, 64, 256),
    "band-16": lambda: _band(torch.float32, 16, 256),
    "band-32-float64": lambda: _band(torch.float64, 32, 256),
    "band-16-float64": lambda: _band(torch.float64, 16, 256),
    "sturm-32": lambda: _sturm(torch.float64, 32),
    "sturm-16": lambda: _sturm(torch.float64, 16),
    "sturm-64": lambda: _sturm(torch.float64, 64),
    "sturm-32-float32": lambda: _sturm(torch.float32, 32),
    "sturm-64-float32": lambda: _sturm(torch.float32, 64),
    "product": _product,
    "product-fp8": _product_fp8,
    "extent": _extent,
    "extent-fp8": _extent_fp8,
    "torch-complex-logarithm": _complex_logarithm,
}


RARE = frozenset({"band-64", "band-16", "band-32-float64", "band-16-float64", "sturm-16", "sturm-64"})
RARE |= {"sturm-32-float32", "sturm-64-float32"}
"""What a benchmark or a matrix that float32 does not serve asks for: compiled when it does."""


def compile_ahead(device: str, jobs: Iterable[str] | None = None) -> dict[str, Exception]:
    """Compile kernels, and load them on a device, by as many threads as there are processors.

    Args:
        device: a torch device, ``cuda:0``.
        jobs: some of :data:`JOBS`; None for all that are not rare.

    Returns:
        What kept a job from its end, by its name: whoever needs that kernel will meet the same error.
    """
    wanted = [job for job in JOBS if job not in RARE] if jobs is None else list(jobs)

    def run(job: str) -> Exception | None:
        try:
            with torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext():
                JOBS[job]()
        except Exception as error:  # noqa: BLE001 - of whatever kind: it is the caller's to judge
            return error
        return None

    with ThreadPoolExecutor(max(1, min(len(wanted), usable_cores()))) as pool:
        found = dict(zip(wanted, pool.map(run, wanted), strict=True))
    return {job: error for job, error in found.items() if error is not None}


def main() -> int:
    """All jobs; exit code 1 if one failed, and what it said."""
    began = time.monotonic()
    failed = compile_ahead(DEVICE, JOBS)
    for job, error in failed.items():
        print(f"compile_ahead: {job} FAILED  {type(error).__name__}: {str(error)[:1500]}", file=sys.stderr)
    print(f"compile_ahead: {len(JOBS) - len(failed)} of {len(JOBS)} jobs, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
