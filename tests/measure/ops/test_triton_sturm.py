"""The Triton slicing kernels against float64 eigenvalues: in the interpreter anywhere, and on a GPU where there is one.

The interpreter is chosen when triton is imported: ``test_in_the_interpreter.py`` has a process of its own for it.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrum_fast.errors import BackendUnavailableError, UsageError
from spectrum_fast.measure.ops.sturm.bands import Bands, scale_bands

from support import operations
from support.bands import eigenvalues, random_band
from support.interpreter import on_both, on_gpu, outside_the_interpreter

triton_sturm = pytest.importorskip("spectrum_fast.measure.ops.sturm.triton")

count_below = partial(operations.count_below, backend="triton")
log_abs_det = partial(operations.log_abs_det, backend="triton")
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@outside_the_interpreter
def test_cpu_tensors_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="cuda tensors"):
        count_below(torch.zeros(3, 2), torch.zeros(1, dtype=torch.float64))


def spread(truth: Tensor, count: int) -> Tensor:
    """Shifts from below the spectrum to above it, irregular so that none is a midpoint by symmetry."""
    margin = 0.1 * max((truth[-1] - truth[0]).item(), truth.abs().max().item())
    steps = torch.linspace(0, 1, count, dtype=torch.float64) ** 1.1
    return truth[0] - margin + steps * (truth[-1] - truth[0] + 2.07 * margin)


def sum_of_logs(truth: Tensor, shifts: Tensor) -> Tensor:
    return (truth - shifts[:, None]).abs().log().sum(1)


def check_band(band: Tensor, device: str, shifts: int, height: float = 0.3) -> None:
    """Counts admissible for a backward error of order eps n max |B|, logarithms to the matching tolerance."""
    truth = eigenvalues(band)
    n, eps = len(band), torch.finfo(band.dtype).eps
    x = spread(truth, shifts)
    slack = 100 * n * eps * band[torch.isfinite(band)].abs().max().double().item()
    counts = count_below(band.to(device), x.to(device)).cpu()
    at_least, at_most = (truth < (x - slack)[:, None]).sum(1), (truth <= (x + slack)[:, None]).sum(1)
    assert counts.dtype == torch.int64
    assert ((at_least <= counts) & (counts <= at_most)).all(), (at_least, counts, at_most)
    z = torch.complex(x, torch.full_like(x, height))
    logs = log_abs_det(band.to(device), z.to(device)).cpu()
    tolerance = 100 * n * eps * max(1, truth.abs().max().item()) / height
    torch.testing.assert_close(logs, sum_of_logs(truth, z), rtol=0, atol=tolerance)


@on_both
@both_dtypes
@pytest.mark.parametrize(("n", "b"), [(1, 0), (2, 5), (9, 2), (33, 32), (35, 4), (38, 33)])
def test_random_bands(n: int, b: int, dtype: torch.dtype, device: str) -> None:
    check_band(random_band(n, b, dtype), device, 3)


@on_gpu
@both_dtypes
@pytest.mark.parametrize(("n", "b"), [(7, 0), (257, 1), (500, 16), (1000, 31), (1000, 32), (777, 33), (1500, 64)])
def test_large_random_bands(n: int, b: int, dtype: torch.dtype, device: str) -> None:
    check_band(random_band(n, b, dtype), device, 57)


@on_both
@both_dtypes
def test_batch(dtype: torch.dtype, device: str) -> None:
    bands = torch.stack([random_band(13, 3, dtype, seed) for seed in range(3)])
    bands[1] = 0
    bands[2] *= 2.0**100
    prepared = Bands(bands.to(device))
    x = torch.stack(
        [
            spread(eigenvalues(bands[0]), 3),
            torch.tensor([-1.0, 1e-3, 1.0]).double(),
            2.0**100 * (0.3 * torch.arange(-1, 2) + 0.1),
        ]
    )
    counts = triton_sturm.count_below(prepared, x.to(device)).cpu()
    logs = triton_sturm.log_abs_det(prepared, torch.complex(x, x.abs()).to(device)).cpu()
    for band, row, count, log in zip(bands, x, counts, logs, strict=True):
        truth = eigenvalues(band)
        assert torch.equal(count, (truth < row[:, None]).sum(1))
        expected = sum_of_logs(truth, torch.complex(row, row.abs()))
        torch.testing.assert_close(log, expected, rtol=1e-13, atol=1e5 * torch.finfo(dtype).eps)


@on_both
def test_every_output_is_written_and_no_more(device: str) -> None:
    band = random_band(5, 2)
    prepared = scale_bands(band[None].to(device))
    x = torch.full((1, 3), 0.1, dtype=torch.float64, device=device)
    counts = torch.full((1, 5), -7, dtype=torch.int64, device=device)
    options = triton_sturm.count_options(x.dtype, 2)
    triton_sturm.launch(triton_sturm._count_kernel, prepared, x, counts[:, :3], options)
    assert counts[0, 3:].tolist() == [-7, -7]
    assert (counts[0, :3].cpu() == (eigenvalues(band * 2.0 ** -prepared.exponents.cpu()) < 0.1).sum()).all()
    logs = torch.full((1, 4), torch.nan, dtype=torch.float64, device=device)
    operands = torch.tensor([[0.1, 0.2, 1.0]], dtype=torch.float64, device=device).expand(1, 3, 3).contiguous()
    options = triton_sturm.log_abs_det_options(x.dtype, 2)
    triton_sturm.launch(triton_sturm._log_abs_det_kernel, prepared, operands, logs[:, :3], options)
    assert torch.isfinite(logs[:, :3]).all()
    assert torch.isnan(logs[:, 3]).all()


@on_both
def test_shifts_that_nobody_wants_are_passed_over(device: str) -> None:
    bands = torch.stack([random_band(9, 2, seed=seed) for seed in range(2)]).to(device)
    z = torch.tensor([[0.1 + 1j, torch.nan, 0.3 + 2j], [torch.inf, 0.2 + 1e-3j, 1j]], dtype=torch.complex128)
    wanted = torch.tensor([[True, False, True], [False, True, False]])
    found = triton_sturm.log_abs_det(Bands(bands), z.to(device), wanted.to(device)).cpu()
    assert (found[~wanted] == 0).all()
    for row in range(2):
        alone = log_abs_det(bands[row], z[row][wanted[row]].to(device)).cpu()
        assert torch.equal(found[row][wanted[row]], alone)


@on_both
@both_dtypes
def test_real_shifts(dtype: torch.dtype, device: str) -> None:
    band = random_band(20, 3, dtype)
    truth = eigenvalues(band)
    left = truth[0] - torch.tensor([1.0, 1e4, 1e30], dtype=torch.float64)
    shifts = torch.cat([left, (truth[[4, 5]] + truth[[5, 6]]) / 2])  # below an odd and an even number of pivots
    values = log_abs_det(band.to(device), shifts.to(torch.complex128).to(device)).cpu()
    torch.testing.assert_close(values, sum_of_logs(truth, shifts), rtol=0, atol=1e4 * torch.finfo(dtype).eps)


@on_both
@both_dtypes
def test_zero_pivots(dtype: torch.dtype, device: str) -> None:
    for b in (1, 3):
        band = torch.ones(14, b + 1, dtype=dtype)
        band[:, 0] = 0
        shifts = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        counts = count_below(band.to(device), shifts.to(device))
        assert ((counts >= 0) & (counts <= 14)).all()
        z = torch.complex(shifts, torch.full_like(shifts, 1e-300))
        assert torch.isfinite(log_abs_det(band.to(device), z.to(device))).all()


@on_both
@both_dtypes
def test_counts_where_zero_pivots_abound(dtype: torch.dtype, device: str) -> None:
    # Entries -1, 0, 1 and integer shifts: about every second factorisation meets a pivot that is exactly zero.
    shifts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    bands = torch.stack(
        [torch.randint(-1, 2, (24, 4), generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (12, 13)]
    )
    counts = triton_sturm.count_below(Bands(bands.to(device)), shifts.expand(2, -1).to(device)).cpu()
    slack = 3e-7 if dtype == torch.float64 else 3e-3
    for band, found in zip(bands, counts, strict=True):
        truth = eigenvalues(band)
        at_least, at_most = (truth < (shifts - slack)[:, None]).sum(1), (truth <= (shifts + slack)[:, None]).sum(1)
        assert ((at_least <= found) & (found <= at_most)).all(), (at_least, found, at_most)


@on_both
@both_dtypes
def test_a_small_pivot_near_an_eigenvalue_is_the_answer(dtype: torch.dtype, device: str) -> None:
    band = torch.zeros(9, 3, dtype=dtype)
    band[:, 0] = torch.arange(1.0, 10.0)
    near = torch.tensor([3.0 + 1e-12j, 5.0 + 1e-9j], dtype=torch.complex128)
    found = log_abs_det(band.to(device), near.to(device)).cpu()
    torch.testing.assert_close(found, sum_of_logs(band[:, 0].double(), near), rtol=0, atol=1e-5)


@on_both
@pytest.mark.parametrize("scale", [1e-300, 1e200, 1e300])
def test_tiny_and_huge_scales(scale: float, device: str) -> None:
    unit = random_band(12, 3)
    truth = eigenvalues(unit)
    x = spread(truth, 3)
    band = (unit * scale).to(device)
    assert torch.equal(count_below(band, (x * scale).to(device)).cpu(), (truth < x[:, None]).sum(1))
    if scale < 1e300:
        far = torch.tensor([-torch.inf, -1e308, 1e308, torch.inf], dtype=torch.float64)
        assert count_below(band, far.to(device)).tolist() == [0, 0, 12, 12]
    z = torch.complex(x, torch.full_like(x, 0.5))
    values = log_abs_det(band, (z * scale).to(device)).cpu()
    torch.testing.assert_close(values, sum_of_logs(truth, z) + 12 * np.log(scale), rtol=1e-13, atol=1e-10)
    z = torch.tensor([1.0 + 1.0j, -3.0], dtype=torch.complex128)
    if scale < 1:  # a shift far outside the spectrum
        values = log_abs_det(band, z.to(device)).cpu()
        torch.testing.assert_close(values, 12 * z.abs().log(), rtol=1e-13, atol=1e-13)


@on_both
@both_dtypes
def test_graded_band_keeps_its_bulk(dtype: torch.dtype, device: str) -> None:
    band = random_band(24, 4, dtype, seed=3)
    band[:3] *= 1e6
    band[:3, 0] = 5e6
    truth = eigenvalues(band)
    shifts = spread(truth[truth.abs() < 100], 9)
    counts = count_below(band.to(device), shifts.to(device)).cpu()
    assert (counts - (truth < shifts[:, None]).sum(1)).abs().max() <= (0 if dtype == torch.float64 else 1)


@on_both
def test_half_precision_bands_are_computed_in_float32(device: str) -> None:
    band = random_band(10, 3, torch.bfloat16)
    truth = eigenvalues(band)
    shifts = (truth[:-1] + truth[1:])[[2, 7]] / 2
    assert count_below(band.to(device), shifts.to(device)).tolist() == [3, 8]


@on_both
def test_refused_operands(device: str) -> None:
    x = torch.zeros(3, dtype=torch.float64, device=device)
    with pytest.raises(UsageError, match="narrower"):
        count_below(torch.zeros(100, 66, device=device), x)
    band = random_band(10, 2).to(device)
    assert count_below(band, x[:0]).shape == (0,)
    assert log_abs_det(band, x[:0].to(torch.complex128)).shape == (0,)
