"""Launches without a GPU: Triton takes the arguments of every launch of the engine, and knows the kernels beforehand.

A driver that only says ``sm_90`` stands in for the real one, and a hook ends every launch where compiling would begin.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton.backends.nvidia")

from spectrum_fast.measure.ops import compile_ahead
from spectrum_fast.measure.ops.band import CARRIED
from spectrum_fast.measure.ops.band import triton as triton_band
from spectrum_fast.measure.ops.extent import triton as triton_extent
from spectrum_fast.measure.ops.gram import triton as triton_gram
from spectrum_fast.measure.ops.product import triton as triton_product
from spectrum_fast.measure.ops.sturm import Bands
from spectrum_fast.measure.ops.sturm import triton as triton_sturm

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter launches nothing")

Launches = set[tuple[str, object]]
_NO_DEVICE = 990
"""A number under which nobody else keeps compiled kernels."""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """What would be compiled: name of the kernel, and what Triton compiles it for."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    found: Launches = set()

    def end_here(*, key: object, fn: object, **_: object) -> bool:
        found.add((fn.name, str(key)))  # type: ignore[attr-defined]
        return True

    stand_in = SimpleNamespace(
        get_current_device=lambda: _NO_DEVICE,
        get_current_stream=lambda _: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )
    monkeypatch.setattr(driver, "_active", stand_in)
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", end_here)
    return found


def run_job(job: str, launches: Launches) -> Launches:
    launches.clear()
    compile_ahead.JOBS[job]()
    return set(launches)


@pytest.mark.parametrize("job", compile_ahead.JOBS)
def test_every_launch_is_accepted(job: str, launches: Launches) -> None:
    names = {name for name, _ in run_job(job, launches)}
    expected = {
        "gram": {"_gram_kernel"},
        "band": {
            "gather_kernel",
            "factor_gram_kernel",
            "orthonormalise_kernel",
            "reconstruct_kernel",
            "form_basis_kernel",
            "form_y_kernel",
            "form_z_kernel",
        },
        "sturm": {"_count_kernel", "_log_abs_det_kernel"},
        "extent": {"_code_kernel" if job == "extent-fp8" else "_extent_kernel"},
        "product": {"_product_kernel"},
        "torch": set(),
    }[job.partition("-")[0]]
    of_halves = {"sweep_kernel", "update_kernel"}  # float64 goes to cuBLAS
    assert names == expected | (of_halves if job.startswith("band") and "float64" not in job else set())


def test_an_argument_too_few_is_noticed(launches: Launches) -> None:
    with pytest.raises(TypeError, match="missing"):
        triton_extent._extent_kernel[(1,)](torch.ones(4), torch.ones(1), **triton_extent.OPTIONS)


def test_what_a_scan_launches_is_compiled_ahead(launches: Launches) -> None:
    """Sizes of real models: nothing is compiled in the middle of a run."""
    ahead = set().union(
        *(run_job(job, launches) for job in ("gram-bfloat16", "product", "band-32", "sturm-32", "extent"))
    )
    launches.clear()
    for rows, columns in ((1024, 4096), (4096, 1024)):
        weight = torch.zeros(2, rows, columns, dtype=torch.bfloat16)
        triton_extent.measure(weight)
        grams = triton_gram.gram(weight)
        x = torch.zeros(1, 8, 1024, dtype=torch.float64).expand(2, -1, -1)
        for stored, transposed in ((grams, False), (weight, rows < columns)):
            triton_product.multiply(stored, x, transposed=transposed)
        y = torch.zeros(2, 8, 4096, dtype=torch.float64)
        triton_product.multiply(weight, y, transposed=rows > columns)
    for group in (1, 4):
        triton_band.reduce_in_groups(grams.zero_(), 32, torch.zeros(2, CARRIED, 1024, dtype=torch.float64), group)
    bands = torch.zeros(2, 1024, 33, dtype=torch.float64)
    prepared = Bands(bands)
    for shifts in (1, 67, 24 * 8, 528):
        x = torch.zeros(2, shifts, dtype=torch.float64)
        triton_sturm.count_below(prepared, x)
        triton_sturm.log_abs_det(prepared, torch.complex(x, x + 1), torch.ones(2, shifts, dtype=torch.bool))
    assert launches <= ahead, sorted(name for name, _ in launches - ahead)
