"""Every Triton kernel compiles for sm_90 and sm_80 with no driver: no spills, shared memory in bounds, the right unit.

``pytest -s`` prints the resource table.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton.backends.nvidia")

from spectrum_fast.ops.gram import triton as triton_gram
from spectrum_fast.ops.sturm import triton as triton_sturm

# The machine code tools are inside the wheel; tests are imported one by one, so the harness is found by its path.
_SPEC = importlib.util.spec_from_file_location("triton_compile", Path(__file__).with_name("triton_compile.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
harness = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = harness  # dataclasses look their module up
_SPEC.loader.exec_module(harness)

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")

POINTER = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
}
SLOW_FLOAT16 = pytest.param(torch.float16, marks=pytest.mark.slow)
on_both_chips = pytest.mark.parametrize("capability", [90, 80])


def check(name, kernel, signature, options, capability, folder, divisible=()):
    constants = {key: options.pop(key) for key in list(options) if key.isupper()}
    used = harness.compile_kernel(
        kernel, signature, constants | {"DIVISIBLE": divisible}, options, capability, Path(folder)
    )
    print("\n" + used.line(name, capability, options["num_warps"]), end="")
    assert used.stack_bytes == 0, "registers spill"
    assert used.local_bytes == 0, "registers spill"
    assert used.shared_bytes <= harness.SHARED_LIMIT_BYTES[capability]
    return used


@on_both_chips
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("half_width", [pytest.param(16, marks=pytest.mark.slow), 32, 64])
def test_count_below(half_width: int, dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    pointer = POINTER[dtype]
    signature = {"rows": pointer, "shifts": pointer, "counts": "*i64"}
    signature |= dict.fromkeys(("n", "n_shifts", "padded_rows"), "i32")
    options = triton_sturm.count_options(dtype, half_width, max(32, half_width))
    name = f"count_below b={half_width} {dtype}"
    check(name, triton_sturm._count_kernel, signature, options, capability, tmp_path)


@on_both_chips
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("half_width", [pytest.param(16, marks=pytest.mark.slow), 32, 64])
def test_log_det(half_width: int, dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    pointer = POINTER[dtype]
    signature = {"rows": pointer, "operands": pointer, "products": "*fp64"}
    signature |= dict.fromkeys(("n", "n_shifts", "padded_rows"), "i32")
    options = triton_sturm.log_det_options(dtype, half_width, max(32, half_width))
    name = f"log_det b={half_width} {dtype}"
    check(name, triton_sturm._log_det_kernel, signature, options, capability, tmp_path)


@on_both_chips
@pytest.mark.parametrize("along_depth", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8, SLOW_FLOAT16], ids=str)
def test_gram(dtype: torch.dtype, along_depth: bool, capability: int, tmp_path: Path) -> None:
    pointer = POINTER[dtype]
    signature = {"weight": pointer, "scales": "*fp32" if dtype == torch.uint8 else pointer, "out": "*fp32"}
    signature |= dict.fromkeys(("k", "depth", "weight_stride", "scale_batch", "scale_row", "scale_depth"), "i32")
    signature |= dict.fromkeys(("weight_batch", "out_batch"), "i64")
    options = triton_gram.gram_options(dtype) | {"ALONG_DEPTH": along_depth}
    name = f"gram {'W Wt' if along_depth else 'Wt W'} {dtype}"
    divisible = ("k", "depth", "weight_stride", "weight_batch", "out_batch")
    used = check(name, triton_gram._gram_kernel, signature, options, capability, tmp_path, divisible)
    assert ("HGMMA" if capability == 90 else "HMMA") in used.sass


def test_a_spill_is_seen(tmp_path: Path) -> None:
    """The check can fail: the window of 64 slots in one warp does not fit."""
    signature = {"rows": "*fp64", "shifts": "*fp64", "counts": "*i64", "n": "i32", "n_shifts": "i32"}
    options = triton_sturm.count_options(torch.float64, 64, 64) | {"num_warps": 1}
    with pytest.raises(AssertionError, match="spill"):
        check(
            "count_below, too wide",
            triton_sturm._count_kernel,
            signature | {"padded_rows": "i32"},
            options,
            90,
            tmp_path,
        )
