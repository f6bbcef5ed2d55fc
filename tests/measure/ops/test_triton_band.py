"""The GPU band reduction against float64 eigenvalues: as torch operations, in the interpreter, and on a GPU.

The interpreter is chosen when triton is imported: ``test_in_the_interpreter.py`` has a process of its own for it.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.band import model, reference
from spectrum_fast.measure.ops.band.panels import reduce_panels
from spectrum_fast.measure.ops.band.workspace import FAN, ROWS, V_SCALE, T, Workspace, allocate

from support.bands import dense_and_clean
from support.interpreter import (
    IN_INTERPRETER_OR_ON_GPU,
    INTERPRETED,
    WITH_GPU,
    on_both,
    on_gpu,
)

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
triton_band = pytest.importorskip("spectrum_fast.measure.ops.band.triton")
add_chunks = pytest.importorskip("spectrum_fast.measure.ops.band.device_sums").add_chunks

DTYPES = [torch.float32, torch.float64]
BOUND = 20.0
"""Largest eigenvalue error in units of eps ||A||_F, as in test_band.py; float16 halves leave 3 and less."""
COHERENT_BOUND = 0.5
"""Allowed in addition, times n, where all entries are equal (see test_band.py)."""

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
IN_TORCH = [] if INTERPRETED else ["torch"]
on_all = pytest.mark.parametrize("device", [*IN_TORCH, IN_INTERPRETER_OR_ON_GPU], indirect=True)
in_torch = pytest.mark.parametrize("device", [*IN_TORCH, *([] if INTERPRETED else [WITH_GPU])], indirect=True)


def reduce_to_band(matrices: Tensor, half_width: int) -> Tensor:
    """By the kernels on a GPU and in the interpreter, else by their model in torch."""
    form = triton_band if matrices.is_cuda or INTERPRETED else model
    return form.reduce_to_band(matrices, half_width)


def steps_on(matrices: Tensor) -> object:
    return triton_band.device_kernels if matrices.is_cuda or INTERPRETED else reference


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_gram(n: int) -> Tensor:
    weight = randn(n, n + 7)
    return weight @ weight.T


def graded_spectrum(n: int) -> Tensor:
    q = torch.linalg.qr(randn(n, n, seed=1)).Q
    return (q * torch.logspace(0, -12, n, dtype=torch.float64)) @ q.T


def graded_rows(n: int) -> Tensor:
    scale = torch.logspace(0, -8, n, dtype=torch.float64)
    return scale[:, None] * noise_gram(n) * scale


def low_rank(n: int, rank: int) -> Tensor:
    weight = randn(n, rank, seed=2)
    return weight @ weight.T


def two_blocks(n: int) -> Tensor:
    """Panels that are zero while the blocks before and after them are not."""
    half = n // 2
    return torch.block_diag(noise_gram(half), randn(n - half, n - half, seed=3))


def duplicate_rows(n: int) -> Tensor:
    """Every row of the weight twice: each panel has half its rank."""
    weight = randn(-(-n // 2), n, seed=4).repeat_interleave(2, 0)[:n]
    return weight @ weight.T


FAMILIES = {
    "noise_gram": noise_gram,
    "indefinite": lambda n: randn(n, n),
    "zero": lambda n: torch.zeros(n, n, dtype=torch.float64),
    "identity": lambda n: torch.eye(n, dtype=torch.float64),
    "rank_one": lambda n: low_rank(n, 1),
    "low_rank": lambda n: low_rank(n, 3),
    "graded_spectrum": graded_spectrum,
    "graded_rows": graded_rows,
    "outlier": lambda n: noise_gram(n) + 1e6 * low_rank(n, 1),
    "duplicate_rows": duplicate_rows,
    "equal_columns": lambda n: torch.ones(n, n, dtype=torch.float64) + torch.eye(n, dtype=torch.float64),
    "two_blocks": two_blocks,
    "tiny": lambda n: 1e-30 * noise_gram(n),
}
EXTREME = {"very_tiny": lambda n: 1e-200 * noise_gram(n), "huge": lambda n: 1e200 * noise_gram(n)}


def symmetric(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    return ((matrix + matrix.T) / 2).to(dtype).contiguous()


def spectrum_error(band: Tensor, matrix: Tensor) -> float:
    """Largest eigenvalue error in units of eps ||A||_F."""
    band = band.cpu()
    assert torch.isfinite(band).all()
    scale = float(matrix.abs().max().double())
    if scale == 0.0:
        return float(band.abs().max())
    original = matrix.double() / scale
    error = torch.linalg.eigvalsh(dense_and_clean(band.double() / scale)) - torch.linalg.eigvalsh(original)
    return float(error.abs().max() / original.norm()) / torch.finfo(matrix.dtype).eps


def limit(name: str, n: int) -> float:
    return BOUND + (COHERENT_BOUND * n if name == "equal_columns" else 0.0)


def fill_scratch(workspace: Workspace) -> Workspace:
    """NaN (or a wrong flag) in all but the operands, and what starts as zeros by contract."""
    for field in dataclasses.fields(workspace):
        value = getattr(workspace, field.name)
        if isinstance(value, Tensor) and field.name not in ("matrix", "band", "scale", "arrived"):
            value.fill_(torch.nan if value.is_floating_point() else 7)
    return workspace


@on_all
@both_dtypes
@pytest.mark.parametrize(("n", "b"), [(11, 8), (24, 8), (37, 8), (70, 16)])
def test_spectrum_with_scratch_full_of_nan(n: int, b: int, dtype: torch.dtype, device: str) -> None:
    names = ["noise_gram", "two_blocks", "rank_one", "graded_spectrum"]
    if n == 11 or (n < 70 and not INTERPRETED):
        names = list(FAMILIES)
    elif INTERPRETED:  # a matrix of these takes a second there, and those of 11 rows are as ragged
        names = names[:2]
    matrices = [symmetric(FAMILIES[name](n), dtype) for name in names]
    batch = torch.stack(matrices).to(device)
    bands = reduce_panels(fill_scratch(allocate(batch, b)), steps_on(batch))
    assert bands.shape == (len(names), n, b + 1)
    for name, matrix, band in zip(names, matrices, bands, strict=True):
        assert spectrum_error(band, matrix) <= limit(name, n), name


@on_all
@both_dtypes
@pytest.mark.parametrize(("n", "b", "group"), [(37, 8, 3), (100, 20, 2)])
def test_updates_of_several_panels_together(n: int, b: int, group: int, dtype: torch.dtype, device: str) -> None:
    """Groups that end with the last panel and that do not; vectors go through every panel: B (Qᵀ x) = Qᵀ (A x)."""
    names = ["noise_gram", "rank_one", "two_blocks", "graded_rows"][: (1 if n == 100 else 2) if INTERPRETED else 4]
    matrices = [symmetric(FAMILIES[name](n), dtype) for name in names]
    batch = torch.stack(matrices)
    x = torch.randn(len(batch), 4, n, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    carried = torch.cat([x, x @ batch.double()], 1).to(device)
    batch = batch.to(device)
    w = fill_scratch(dataclasses.replace(allocate(batch, b, group=group), carried=None))
    w = dataclasses.replace(w, carried=carried)
    bands = reduce_panels(w, steps_on(batch))
    assert not w.arrived.any()
    image = carried.cpu()
    for place, (name, matrix, band) in enumerate(zip(names, matrices, bands, strict=True)):
        assert spectrum_error(band, matrix) <= limit(name, n), name
        off = image[place, :4] @ dense_and_clean(band.cpu().double()) - image[place, 4:]
        size = torch.finfo(dtype).eps * float(matrix.double().norm() * x[place].norm())
        assert float(off.norm()) <= BOUND * size, name
        torch.testing.assert_close(image[place, :4].norm(dim=1), x[place].norm(dim=1), rtol=1e-12, atol=0)


@triton.jit
def add_up_kernel(partials, arrived, total, plane, most, products, WIDTH: tl.constexpr):
    add_chunks(partials, arrived, total, plane, tl.program_id(0), tl.num_programs(0), most, 2, products, WIDTH)


@on_both
def test_whoever_comes_last_adds_up(device: str) -> None:
    """More chunks than are added up together, of more matrices and blocks than one; counters end at zero."""
    most, chunks, width = 2 * FAN + 7, 2 * FAN + 3, 16
    partials = torch.randn(3, most, 3, width, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    partials[:, chunks:] = partials[:, :, 2] = torch.nan
    expected = partials[:, :chunks, :2].sum(1).transpose(0, 1)
    total = torch.full((2, 3, width, width), torch.nan, dtype=torch.float64, device=device)
    arrived = torch.zeros(3, 1 + 3, dtype=torch.int32, device=device)
    add_up_kernel[(chunks, 3)](partials.to(device), arrived, total, total.stride(0), most, 3, WIDTH=width, num_warps=4)
    assert not arrived.any()
    torch.testing.assert_close(total.cpu(), expected, rtol=1e-13, atol=1e-13)


@on_all
def test_odd_half_widths(device: str) -> None:
    for n, b in ((9, 1), (14, 3), (30, 13)):
        matrix = symmetric(noise_gram(n), torch.float32)
        assert spectrum_error(reduce_to_band(matrix[None].clone().to(device), b)[0], matrix) <= BOUND


@in_torch
@both_dtypes
@pytest.mark.parametrize("n", [1, 2, 5, 33, 65, 129, 257])
def test_spectrum(n: int, dtype: torch.dtype, device: str) -> None:
    families = FAMILIES | EXTREME if dtype == torch.float64 else FAMILIES
    matrices = torch.stack([symmetric(family(n), dtype) for family in families.values()])
    for b in (1, 8, 32, 64) if n < 100 else (16, 33, 64):
        bands = reduce_to_band(matrices.clone().to(device), b)
        assert bands.shape == (len(families), n, b + 1)
        assert bands.dtype == dtype
        for name, matrix, band in zip(families, matrices, bands, strict=True):
            assert spectrum_error(band, matrix) <= limit(name, n), (name, b)


@in_torch
@both_dtypes
def test_a_batch_is_its_matrices_one_by_one(dtype: torch.dtype, device: str) -> None:
    matrices = [symmetric(FAMILIES[name](130), dtype).to(device) for name in ("noise_gram", "low_rank", "zero")]
    together = reduce_to_band(torch.stack(matrices), 32)
    for matrix, band in zip(matrices, together, strict=True):
        alone = reduce_to_band(matrix[None].clone(), 32)[0]
        size = torch.finfo(dtype).eps * float(matrix.double().norm())
        assert float((band - alone).abs().max()) <= BOUND * size


@on_gpu
@both_dtypes
@pytest.mark.parametrize(("n", "b"), [(1000, 32), (1024, 64), (2048, 32), (1337, 16)])
def test_large(n: int, b: int, dtype: torch.dtype, device: str) -> None:
    for name in ("noise_gram", "outlier", "low_rank"):
        matrix = symmetric(FAMILIES[name](n), dtype)
        band = reduce_to_band(matrix[None].clone().to(device), b)[0]
        assert spectrum_error(band, matrix) <= BOUND, name


@on_gpu
@both_dtypes
def test_kernels_follow_their_model(dtype: torch.dtype, device: str) -> None:
    """Signs of reflections are fixed, so the bands agree entry by entry, not only in their eigenvalues."""
    matrix = symmetric(noise_gram(300), dtype)
    expected = model.reduce_to_band(matrix[None].clone(), 32)[0]
    found = triton_band.reduce_to_band(matrix[None].clone().to(device), 32)[0].cpu()
    assert float((found - expected).abs().max()) <= 1e4 * torch.finfo(dtype).eps * float(matrix.double().norm())


@on_gpu
@both_dtypes
def test_a_graph_captures_it_and_runs_give_the_same_bits(dtype: torch.dtype, device: str) -> None:
    source = torch.stack([symmetric(FAMILIES[name](400), dtype) for name in ("noise_gram", "low_rank")]).to(device)
    work = source.clone()
    eager = triton_band.reduce_to_band(work, 32).clone()
    work.copy_(source)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # a wait for the device inside raises here
        work.copy_(source)
        captured = triton_band.reduce_to_band(work, 32)
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(captured, eager)


@pytest.mark.skipif(INTERPRETED, reason="plain torch")
@pytest.mark.parametrize("rows", [32, 33, 100])
@pytest.mark.parametrize("kind", ["noise", "zero", "rank one", "equal", "graded", "near duplicate", "tiny", "wide"])
def test_every_panel_gives_an_orthogonal_reflector(rows: int, kind: str) -> None:
    """I - V T Vᵀ is orthogonal and takes P to [R; 0], to float64, whatever the panel."""
    b, rows = 32, 20 if kind == "wide" else rows
    panel = randn(rows, b)
    if kind == "zero":
        panel.zero_()
    elif kind == "rank one":
        panel = randn(rows, 1) @ randn(1, b, seed=5)
    elif kind == "equal":
        panel.fill_(1.0)
    elif kind == "graded":
        panel *= torch.logspace(0, -12, b, dtype=torch.float64)
    elif kind == "near duplicate":
        panel[:, 5] = panel[:, 9] + 1e-10 * panel[:, 5]
    elif kind == "tiny":
        panel *= 1e-30
    n = rows + b
    matrix = torch.zeros(n, n, dtype=torch.float64)
    matrix[b:, :b], matrix[:b, b:] = panel, panel.T
    w = fill_scratch(allocate(matrix[None], b))
    for step in ("gather_panel", "factor_gram", "orthonormalise", "reconstruct", "form_basis"):
        getattr(reference, step)(w, 0)
    v, t = w.basis[0, 0, b:], w.small[T, 0]
    eye = torch.eye(rows, dtype=torch.float64)
    q = eye - v @ t @ v.T
    r = torch.zeros_like(panel)
    for j in range(b):
        count = min(j + 1, rows)
        r[:count, j] = w.band[0, j, b - j : b - j + count]
    assert float((q.T @ q - eye).abs().max()) <= 1e-13
    assert float((q.T @ panel - r).norm()) <= 1e-13 * float(panel.norm())
    broken = {"zero", "rank one", "equal", "near duplicate", "wide"}
    assert bool(w.broken[0]) == (kind in broken)


@pytest.mark.skipif(INTERPRETED, reason="plain torch")
def test_halves_are_as_good_as_float32() -> None:
    """The bounds of spectra/rounding.py (4 eps ||G||_F / √n for one eigenvalue) hold for this form too."""
    matrix = symmetric(noise_gram(512), torch.float32)
    unit = torch.finfo(torch.float32).eps * float(matrix.double().norm()) / 512**0.5
    truth = torch.linalg.eigvalsh(matrix.double())
    error = torch.linalg.eigvalsh(dense_and_clean(reduce_to_band(matrix[None].clone(), 32)[0])) - truth
    assert float(error.abs().max()) <= 2.0 * unit
    assert abs(float(error.mean())) <= 0.2 * unit


def test_a_band_too_wide_is_refused() -> None:
    with pytest.raises(UsageError, match="up to 64, found 65"):
        triton_band.reduce_to_band(torch.zeros(1, 100, 100), 65)


@pytest.mark.parametrize("size", [0.0, 1e-37, 1e-20, 1.0, 3e4, 1e30, 3e38])
def test_the_scale_and_its_reciprocal_are_exact_powers_of_two(size: float) -> None:
    up, down = allocate(torch.full((1, 3, 3), size), 1).scale.double()[:, 0].tolist()
    assert up * down * V_SCALE == 1.0
    assert math.frexp(up)[0] == 0.5
    assert 0 < float(torch.tensor(down).float()) < math.inf
    if 1e-20 <= size <= 1e30:
        assert 4096 <= up * 2 * float(torch.tensor(size)) < 8192 * (1 + 1e-6)


def test_the_sweep_fills_the_device() -> None:
    w = allocate(torch.zeros(1, 8 * ROWS, 8 * ROWS), 16)
    assert w.sweep_splits(512) == 4  # no more parts than blocks of columns
    assert allocate(torch.zeros(64, 64, 64), 16).sweep_splits(64) == 1
