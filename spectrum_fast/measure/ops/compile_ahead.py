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
from importlib import import_module
from itertools import product

import torch
from torch import Tensor

from spectrum_fast.measure.ops.band import CARRIED
from spectrum_fast.measure.ops.sturm import Bands
from spectrum_fast.system import usable_cores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


_SHAPES = ((256, 512), (512, 256), (250, 391), (391, 250))
"""Of weights: wide and tall, their sides divisible by 16 and not."""
_FP8 = torch.uint8
"""Stands for the bytes of its codes."""


def _kernel(operation: str, name: str, dtype: torch.dtype) -> Callable[..., Tensor]:
    """A function that launches kernels, or its form for codes."""
    module = import_module(f"spectrum_fast.measure.ops.{operation}.triton")
    return getattr(module, f"{name}_block_scaled" if dtype == _FP8 else name)


def _weight(shape: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    """A weight, or its codes and their scales."""
    weight = torch.zeros(1, *shape, device=DEVICE, dtype=dtype)
    return [weight, torch.ones(1, -(-shape[0] // 128), -(-shape[1] // 128), device=DEVICE)][: 1 + (dtype == _FP8)]


def _gram(dtype: torch.dtype) -> None:
    for shape in _SHAPES[:2] if dtype == _FP8 else _SHAPES:
        _kernel("gram", "gram", dtype)(*_weight(shape, dtype))


def _extent(*dtypes: torch.dtype) -> None:
    for dtype, shape in product(dtypes, _SHAPES[::2]):
        _kernel("extent", "measure", dtype)(*_weight(shape, dtype))


def _product(*dtypes: torch.dtype) -> None:
    for dtype, shape, transposed in product(dtypes, _SHAPES, (False, True)):
        if dtype != _FP8 or shape in _SHAPES[:2]:
            x = torch.zeros(1, 4, shape[not transposed], device=DEVICE, dtype=torch.float64)
            _kernel("product", "multiply", dtype)(*_weight(shape, dtype), x, transposed=transposed)


def _band(dtype: torch.dtype, half_width: int, order: int) -> None:
    matrix = torch.randn(1, order, order, device=DEVICE, dtype=dtype)
    carried = torch.zeros(1, CARRIED, order, device=DEVICE, dtype=torch.float64) if dtype == torch.float32 else None
    for group in (1, 2):  # as small matrices are updated, and as large ones
        _kernel("band", "reduce_in_groups", dtype)(matrix + matrix.mT, half_width, carried, group)


def _sturm(dtype: torch.dtype, half_width: int) -> None:
    bands = Bands(torch.randn(1, 80, half_width + 1, device=DEVICE, dtype=dtype))
    x = torch.zeros(1, 3, dtype=torch.float64, device=DEVICE)
    _kernel("sturm", "count_below", dtype)(bands, x)
    _kernel("sturm", "log_abs_det", dtype)(bands, torch.complex(x, x + 1))


JOBS: dict[str, Callable[[], None]] = {
    "gram-bfloat16": lambda: _gram(torch.bfloat16),
    "gram-float32": lambda: _gram(torch.float32),
    "gram-float16": lambda: _gram(torch.float16),
    "gram-fp8": lambda: _gram(_FP8),
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
    "product": lambda: _product(torch.bfloat16, torch.float16, torch.float32),
    "product-fp8": lambda: _product(_FP8),
    "extent": lambda: _extent(torch.bfloat16, torch.float16, torch.float32, torch.float64),
    "extent-fp8": lambda: _extent(_FP8),
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
