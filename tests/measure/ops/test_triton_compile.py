"""Every Triton kernel compiles for sm_90 and sm_80 with no driver: no spills, shared memory in bounds, the right unit.

``pytest -s`` prints the resource table.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton.backends.nvidia")

from spectrum_fast.measure.ops.band import CARRIED, device_kernels, device_panel, device_small, device_sweep
from spectrum_fast.measure.ops.decode import triton as triton_decode
from spectrum_fast.measure.ops.extent import triton as triton_extent
from spectrum_fast.measure.ops.gram import triton as triton_gram
from spectrum_fast.measure.ops.product import triton as triton_product
from spectrum_fast.measure.ops.sturm import triton as triton_sturm

from support import triton_compile as harness

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
    if sys.stdout is sys.__stdout__:  # with -s
        print("\n" + used.line(name, capability, options["num_warps"]), end="")
    assert used.stack_bytes == 0, "registers spill"
    assert used.local_bytes == 0, "registers spill"
    assert used.shared_bytes <= harness.SHARED_LIMIT_BYTES[capability]
    assert used.long_tensor_core_sums() == [], "they round towards zero: see tests/measure/ops/test_tensor_core_sums.py"
    assert not re.search(r"mma[^;]*\btf32\b", used.ptx), "a float32 product in 11 bits"
    return used


@on_both_chips
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("half_width", [pytest.param(16, marks=pytest.mark.slow), 32, 64])
def test_count_below(half_width: int, dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    pointer = POINTER[dtype]
    signature = {"rows": pointer, "shifts": pointer, "counts": "*i64"}
    signature |= dict.fromkeys(("n", "n_shifts", "padded_rows"), "i32")
    options = triton_sturm.count_options(dtype, half_width)
    name = f"count_below b={half_width} {dtype}"
    used = check(name, triton_sturm._count_kernel, signature, options, capability, tmp_path)
    if (half_width, dtype) == (32, torch.float64):
        assert used.loop <= 4 * 200, "instructions of four steps"


@on_both_chips
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("half_width", [pytest.param(16, marks=pytest.mark.slow), 32, 64])
def test_log_abs_det(half_width: int, dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    pointer = POINTER[dtype]
    signature = {"rows": pointer, "operands": pointer, "logs": "*fp64"}
    signature |= dict.fromkeys(("n", "n_shifts", "padded_rows"), "i32")
    options = triton_sturm.log_abs_det_options(dtype, half_width)
    name = f"log_abs_det b={half_width} {dtype}"
    used = check(name, triton_sturm._log_abs_det_kernel, signature, options, capability, tmp_path)
    if (half_width, dtype) == (32, torch.float64):
        assert used.loop <= 4 * 400, "instructions of four steps"


GRAM_ARGUMENTS = {"scales": "*fp32", "out": "*fp32", "one": "fp32"}
GRAM_ARGUMENTS |= dict.fromkeys(("k", "depth", "weight_stride", "scale_batch", "scale_row", "scale_depth"), "i32")
GRAM_ARGUMENTS |= dict.fromkeys(("weight_batch", "out_batch"), "i64")
GRAM_DIVISIBLE = ("k", "depth", "weight_stride", "weight_batch", "out_batch")


@on_both_chips
@pytest.mark.parametrize("along_depth", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, SLOW_FLOAT16], ids=str)
def test_gram(dtype: torch.dtype, along_depth: bool, capability: int, tmp_path: Path) -> None:
    check_gram(dtype, along_depth, False, capability, tmp_path)


@on_both_chips
@pytest.mark.parametrize("along_depth", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str)
def test_gram_added(dtype: torch.dtype, along_depth: bool, capability: int, tmp_path: Path) -> None:
    check_gram(dtype, along_depth, True, capability, tmp_path)


def check_gram(dtype: torch.dtype, along_depth: bool, add: bool, capability: int, tmp_path: Path) -> None:
    signature = {"weight": POINTER[dtype]} | GRAM_ARGUMENTS
    options = triton_gram.gram_options(dtype, capability=capability) | {"ALONG_DEPTH": along_depth, "ADD": add}
    name = f"gram {'W Wt' if along_depth else 'Wt W'} {dtype}"
    used = check(name, triton_gram._gram_kernel, signature, options, capability, tmp_path, GRAM_DIVISIBLE)
    assert ("HGMMA" if capability == 90 else "HMMA") in used.sass
    if capability == 90:  # bench/gpu/README.md counts with them
        assert used.loop <= (520 if dtype == torch.float32 else 270), "instructions of one step"
        assert used.copies_in_flight(), "no copies by the way of shared memory"
        assert min(used.copies_in_flight()) >= 1, "each step waits for its own operands"


def test_a_loop_that_waits_for_its_own_loads_is_seen(tmp_path: Path) -> None:
    """The check can fail: with two stages nothing is under way at the head of the loop."""
    signature = {"weight": "*bf16"} | GRAM_ARGUMENTS
    options = triton_gram.gram_options(torch.bfloat16) | {"ALONG_DEPTH": True, "ADD": False, "num_stages": 2}
    used = check("gram, two stages", triton_gram._gram_kernel, signature, options, 90, tmp_path, GRAM_DIVISIBLE)
    assert min(used.copies_in_flight()) == 0


@pytest.mark.parametrize("along_depth", [True, False])
@pytest.mark.parametrize(("convert", "capability"), [(True, 90), (False, 80)])
def test_gram_of_codes(convert: bool, capability: int, along_depth: bool, tmp_path: Path) -> None:
    signature = {"weight": "*fp8e4nv" if convert else "*u8"} | GRAM_ARGUMENTS
    options = triton_gram.gram_options(torch.float8_e4m3fn if convert else torch.uint8, capability=capability)
    options |= {"ALONG_DEPTH": along_depth}
    name = f"gram {'W Wt' if along_depth else 'Wt W'} e4m3"
    used = check(name, triton_gram._gram_kernel, signature, options, capability, tmp_path, GRAM_DIVISIBLE)
    assert ("HGMMA" if capability == 90 else "HMMA") in used.sass
    if capability == 90:
        assert used.loop <= 420, "instructions of one step"
    assert not any(op.startswith("QGMMA") for op in used.sass), "sums of 14 bits"


F64, F16, I32, I64 = "*fp64", "*fp16", "i32", "i64"
SUMS = {"partials": F64, "arrived": "*i32"}
ROOM = dict.fromkeys(("max_chunks", "products"), I32)
BAND_TALL = {
    "gather": (
        device_panel.gather_kernel,
        {"matrix": None, "band": None, "panel": F64, "basis": F64, "z": F64, **SUMS, "total": F64}
        | {"n": I32, "index": I32, "pending": I32, "place": I64, "chunks": I32, **ROOM},
        ("HALF_WIDTH",),
    ),
    "orthonormalise": (
        device_panel.orthonormalise_kernel,
        dict.fromkeys(("panel", "basis", "r1", "w"), F64) | SUMS | {"total": F64, "n": I32, "begin": I32, **ROOM},
        (),
    ),
    "form_basis": (
        device_panel.form_basis_kernel,
        {"basis": F64, "halves": F16, **dict.fromkeys(("m", "top", "old_basis", "old_z", "carried"), F64), **SUMS}
        | {"cross": F64, "n": I32, "begin": I32, "older": I32, "place": I64, "plane": I64, "cross_plane": I64, **ROOM},
        ("HALF_WIDTH", "SPLIT", "CARRIED"),
    ),
    "form_y": (
        device_panel.form_y_kernel,
        {"product": None, **dict.fromkeys(("basis", "z", "t", "old_basis", "old_z", "cross"), F64), **SUMS}
        | {"total": F64, "n": I32, "begin": I32, "splits": I32, "part": I64, "older": I32, "place": I64}
        | {"cross_plane": I64, **ROOM},
        (),
    ),
    "form_z": (
        device_panel.form_z_kernel,
        {"basis": F64, "z": F64, "halves": F16, "t": F64, "inner": F64, "scale": "*fp32", "carried": F64}
        | {"with_carried": F64, "n": I32, "begin": I32, "plane": I64},
        ("SPLIT", "CARRIED"),
    ),
}
BAND_SMALL = {
    "factor_gram": (
        device_small.factor_gram_kernel,
        {"inner": F64, "r1": F64, "w": F64, "broken": "*i32", "too_wide": I32},
        (),
    ),
    "reconstruct": (
        device_small.reconstruct_kernel,
        {"inner": F64, "panel": F64, "basis": F64, "band": None, "small": F64, "broken": "*i32", "n": I32}
        | {"index": I32, "plane": I64},
        ("ROWS",),
    ),
}
band_widths = pytest.mark.parametrize("half_width", [pytest.param(16, marks=pytest.mark.slow), 32, 64])


def band_options(name: str, half_width: int, dtype: torch.dtype) -> dict[str, int | bool]:
    if name == "gather":
        return device_kernels.gather_options(half_width, dtype)
    if name == "form_basis":
        return device_kernels.basis_options(half_width)
    if name in BAND_TALL:
        return device_kernels.tall_options(half_width)
    return device_kernels.small_options(half_width, half_width)


@on_both_chips
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@band_widths
@pytest.mark.parametrize("name", [*BAND_TALL, *BAND_SMALL])
def test_band_panel(name: str, half_width: int, dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    kernel, signature, extra = (BAND_TALL | BAND_SMALL)[name]
    signature = {key: value or POINTER[dtype] for key, value in signature.items()}
    options = band_options(name, half_width, dtype)
    single = dtype == torch.float32
    known = {"HALF_WIDTH": half_width, "SPLIT": single, "CARRIED": CARRIED if single else 0}
    known |= {"ROWS": device_kernels.ROWS}
    options |= {key: known[key] for key in extra}
    for steps in device_kernels.reconstruct_steps(half_width) if name == "reconstruct" else (None,):
        line = f"band {name} b={half_width} {dtype}" + (f" steps {steps:03b}" if steps else "")
        chosen = options | ({"STEPS": steps} if steps else {})
        check(line, kernel, signature, chosen, capability, tmp_path, BAND_DIVISIBLE)


BAND_DIVISIBLE = ("n", "plane", "part", "place", "cross_plane")
IN_PLACE = {"orthonormalise": None, "form_basis": None, "form_z": None, "reconstruct": (0b0001, 0b0100)}
"""Kernels that store where they have loaded, and the steps of the reconstruction that do."""
AT_FIRST = {"form_basis", "form_z"}
"""Of those, the ones whose first store is such a one."""


@on_both_chips
@pytest.mark.parametrize("half_width", [32, 64])
@pytest.mark.parametrize("name", IN_PLACE)
def test_a_barrier_stands_between_loads_and_stores_in_place(
    name: str, half_width: int, capability: int, tmp_path: Path
) -> None:
    kernel, signature, extra = (BAND_TALL | BAND_SMALL)[name]
    signature = {key: value or "*fp32" for key, value in signature.items()}
    options = band_options(name, half_width, torch.float32)
    known = {"HALF_WIDTH": half_width, "SPLIT": True, "CARRIED": CARRIED, "ROWS": device_kernels.ROWS}
    options |= {key: known[key] for key in extra}
    for steps in IN_PLACE[name] or (None,):
        chosen = options | ({"STEPS": steps} if steps else {})
        used = check(f"{name} in place", kernel, signature, chosen, capability, tmp_path, BAND_DIVISIBLE)
        assert barrier_after_last_load(used.ptx), (name, steps)
        assert name not in AT_FIRST or barrier_before_first_store(used.ptx), name


def _loads_stores_and_barriers(ptx: str) -> list[str]:
    """In order; but for loads past the cache, which add up what others have stored."""
    return re.findall(r"\b(ld\.global(?!\.cg)|st\.global|bar(?:rier)?\.(?:cta\.)?sync)", ptx)


def barrier_after_last_load(ptx: str) -> bool:
    """Whether the first store to global memory that follows the last load from it comes after a barrier."""
    found = _loads_stores_and_barriers(ptx)
    last = max(place for place, what in enumerate(found) if what == "ld.global")
    rest = found[last + 1 :]
    return "st.global" in rest and rest[0] != "st.global"


def barrier_before_first_store(ptx: str) -> bool:
    """Whether a barrier stands between the first store to global memory and the loads before it."""
    found = _loads_stores_and_barriers(ptx)
    return found[found.index("st.global") - 1].startswith("bar")


def test_a_missing_barrier_is_seen(tmp_path: Path) -> None:
    """The check can fail: each thread here stores what it has loaded itself."""
    import triton
    import triton.language as tl

    @triton.jit
    def double(a):
        i = tl.arange(0, 128)
        tl.store(a + i, 2.0 * tl.load(a + i))

    used = check("in place, no barrier", double, {"a": "*fp32"}, {"num_warps": 4}, 90, tmp_path)
    assert not barrier_after_last_load(used.ptx)
    assert not barrier_before_first_store(used.ptx)


@on_both_chips
@pytest.mark.parametrize("pending", [True, False])
@band_widths
def test_band_sweep(half_width: int, pending: bool, capability: int, tmp_path: Path) -> None:
    signature = {"matrix": "*fp32", "new": F16, "old": F16, "z": F16, "product": "*fp32", "scale": "*fp32"}
    signature |= {"n": I32, "index": I32, "plane": I64, "part": I64}
    options = device_kernels.sweep_options(half_width, capability) | {"HALF_WIDTH": half_width, "PENDING": pending}
    name = f"band sweep b={half_width}{'' if pending else ' first'}"
    divisible = ("n", "plane", "part")
    used = check(name, device_sweep.sweep_kernel, signature, options, capability, tmp_path, divisible)
    assert ("HGMMA" if capability == 90 else "HMMA") in used.sass
    if capability == 90:
        assert min(used.copies_in_flight()) >= 1, "each step waits for its own operands"
    if (half_width, capability) == (32, 90):  # three programs share a multiprocessor
        assert 3 * 256 * -(-used.registers // 8) * 8 <= 1 << 16
        assert 3 * (used.shared_bytes + 1024) <= 228 * 1024
    assert not {"MUFU", "RCP"} & used.sass, "an approximate reciprocal in place of the stored one"
    assert "rcp.approx" not in used.ptx
    assert "div.full" not in used.ptx


@on_both_chips
@band_widths
def test_band_update(half_width: int, capability: int, tmp_path: Path) -> None:
    signature = {"matrix": "*fp32", "halves": F16, "scale": "*fp32", "n": I32, "begin": I32, "panels": I32}
    signature |= dict.fromkeys(("place", "apart", "plane"), I64)
    options = device_kernels.update_options(half_width, capability)
    name = f"band update b={half_width}"
    divisible = (*BAND_DIVISIBLE, "apart")
    used = check(name, device_sweep.update_kernel, signature, options, capability, tmp_path, divisible)
    assert ("HGMMA" if capability == 90 else "HMMA") in used.sass
    if capability == 90:
        assert min(used.copies_in_flight()) >= 1, "each step waits for its own operands"


def test_a_spill_is_seen(tmp_path: Path) -> None:
    """The check can fail: the window of 64 slots in one warp does not fit."""
    signature = {"rows": "*fp64", "shifts": "*fp64", "counts": "*i64", "n": "i32", "n_shifts": "i32"}
    options = triton_sturm.count_options(torch.float64, 64) | {"num_warps": 1}
    with pytest.raises(AssertionError, match="spill"):
        check(
            "count_below, too wide",
            triton_sturm._count_kernel,
            signature | {"padded_rows": "i32"},
            options,
            90,
            tmp_path,
        )


def test_a_long_sum_in_the_tensor_cores_is_seen(tmp_path: Path) -> None:
    """The check can fail: a plain loop of products is what it looks for."""
    import triton
    import triton.language as tl

    @triton.jit
    def plain_product(a, b, out, depth, SIDE: tl.constexpr):
        i = tl.arange(0, SIDE)
        total = tl.zeros([SIDE, SIDE], dtype=tl.float32)
        for _ in range(depth):
            places = i[:, None] * SIDE + i[None, :]
            total += tl.dot(tl.load(a + places), tl.load(b + places))
            a += SIDE * SIDE
        tl.store(out + i[:, None] * SIDE + i[None, :], total)

    signature = {"a": "*fp16", "b": "*fp16", "out": "*fp32", "depth": "i32"}
    with pytest.raises(AssertionError, match="towards zero"):
        check(
            "plain product",
            plain_product,
            signature,
            {"SIDE": 64, "num_warps": 4, "enable_fp_fusion": True},
            90,
            tmp_path,
        )


@on_both_chips
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, SLOW_FLOAT16], ids=str)
def test_extent(dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    signature = {"weight": POINTER[dtype], "tops": "*i64", "sums": "*fp64", "size": "i64", "programs": "i32"}
    signature |= dict.fromkeys(("matrix_stride", "row_stride"), "i64")
    kernel, options, aligned = (
        triton_extent._extent_kernel,
        triton_extent.OPTIONS,
        ("size", "matrix_stride", "row_stride"),
    )
    for divisible in ((), aligned):
        used = check(f"extent {dtype}", kernel, signature, dict(options), capability, tmp_path, divisible)
        assert bool(re.search(r"ld\.global\.v[24]", used.ptx)) == bool(divisible), "whole vectors, if they lie so"


@on_both_chips
@pytest.mark.parametrize("along_sum", [True, False])
@pytest.mark.parametrize(
    ("dtype", "vectors"),
    [
        (torch.bfloat16, 8),
        (torch.float32, 8),
        (torch.uint8, 8),
        pytest.param(torch.float64, 32, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_product(dtype: torch.dtype, vectors: int, along_sum: bool, capability: int, tmp_path: Path) -> None:
    scaled = dtype == torch.uint8
    convert = scaled and capability == 90
    signature = {"weight": "*fp8e4nv" if convert else POINTER[dtype], "x": F64, "parts": F64}
    signature |= {"scales": "*fp32" if scaled else F64}
    signature |= dict.fromkeys(("results", "terms", "vectors", "weight_stride", "x_stride"), I32)
    signature |= dict.fromkeys(("scale_batch", "scale_row", "scale_term"), I32)
    signature |= dict.fromkeys(("weight_batch", "x_batch"), I64)
    options = triton_product.product_options(dtype, vectors)
    options |= {"ALONG_SUM": along_sum, "SCALED": scaled}
    divisible = ("results", "terms", "weight_stride", "x_stride", "weight_batch", "x_batch")
    name = f"product {'W' if along_sum else 'Wt'} {'e4m3' if scaled else dtype}"
    used = check(name, triton_product._product_kernel, signature, options, capability, tmp_path, divisible)
    assert "DMMA" in used.sass
    assert used.registers <= 128, "two programs a multiprocessor"


@on_both_chips
def test_extent_of_codes(capability: int, tmp_path: Path) -> None:
    signature = {"codes": "*u8", "tops": "*u8", "sums": "*fp64", "rows": "i32", "columns": "i32"}
    kernel, options = triton_extent._code_kernel, dict(triton_extent.CODE_OPTIONS)
    check("extent e4m3", kernel, signature, options, capability, tmp_path, ("rows", "columns"))


@on_both_chips
def test_decoding_of_four_bit_codes(capability: int, tmp_path: Path) -> None:
    for name, number, low_first in (("mxfp4", "*bf16", True), ("nf4", "*fp32", False)):
        signature = {"codes": "*u8", "table": number, "scales": "*fp32", "out": number}
        signature |= dict.fromkeys(("size", "half_width"), "i32")
        options = triton_decode.OPTIONS | {"LOW_FIRST": low_first}
        check(f"decode {name}", triton_decode._nibble_kernel, signature, options, capability, tmp_path)
