"""Compile every kernel of the engine into Triton's cache, in processes beside each other, before anything is timed.

A kernel takes two to three seconds and a first run needs some sixty: one after the other that is two minutes of a short
lease. A small launch of each does it, since what a kernel is compiled for depends on types, widths and divisibility by
16 and not on sizes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

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
    from spectrum_fast.measure.ops.band import triton as triton_band

    matrix = torch.randn(1, order, order, device=DEVICE, dtype=dtype)
    triton_band.reduce_to_band(matrix + matrix.mT, half_width)


def _sturm(dtype: torch.dtype, half_width: int) -> None:
    from spectrum_fast.measure.ops.sturm import triton as triton_sturm

    bands = triton_sturm.prepare(torch.randn(1, 80, half_width + 1, device=DEVICE, dtype=dtype))
    x = torch.zeros(1, 3, dtype=torch.float64, device=DEVICE)
    triton_sturm.count_below(bands, x)
    triton_sturm.log_det(bands, torch.complex(x, x + 1))


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
    "extent": _extent,
    "extent-fp8": _extent_fp8,
    "torch-complex-logarithm": _complex_logarithm,
}


def main() -> int:
    """All jobs, or the one that is named; exit code 1 if one failed, and what it said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", choices=JOBS)
    chosen = parser.parse_args().job
    if chosen:
        JOBS[chosen]()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return 0
    began = time.monotonic()

    def run(job: str) -> tuple[str, int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bench.gpu.compile_ahead", job], capture_output=True, text=True, check=False
        )
        return job, done.returncode, done.stderr

    with ThreadPoolExecutor(max(1, min(len(JOBS), os.cpu_count() or 1))) as pool:
        failed = [(job, said) for job, code, said in pool.map(run, JOBS) if code]
    for job, said in failed:
        print(f"compile_ahead: {job} FAILED\n{said[-1500:]}", file=sys.stderr)
    print(f"compile_ahead: {len(JOBS) - len(failed)} of {len(JOBS)} jobs, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
