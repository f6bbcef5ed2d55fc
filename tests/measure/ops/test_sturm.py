"""Slicing against float64 eigenvalues of the dense matrix, on both backends and every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spectrum_fast.errors import UsageError
from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.measure.ops.sturm import narrow

from support.bands import eigenvalues, random_band
from support.instruction_sets import run_at_level
from support.operations import count_below, log_abs_det

BACKENDS = ["reference", "native"]
DTYPES = [torch.float32, torch.float64]
ORDERS = [1, 2, 3, 7, 33, 100, 257]
HALF_WIDTHS = [0, 1, 2, 5, 16, 32, 33]

both_backends = pytest.mark.parametrize("backend", BACKENDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def backward_error(band: Tensor) -> float:
    """What a count may overlook: eps * max |B| * growth, growth of the order of n * number of shifts."""
    largest = band[torch.isfinite(band)].abs().max().double().item()
    return 100 * len(band) * torch.finfo(band.dtype).eps * largest


def assert_admissible(counts: Tensor, truth: Tensor, shifts: Tensor, tolerance: float) -> None:
    """Each count lies between the numbers of eigenvalues below x - tolerance and below x + tolerance."""
    at_least = (truth < (shifts - tolerance)[:, None]).sum(1)
    at_most = (truth <= (shifts + tolerance)[:, None]).sum(1)
    assert counts.dtype == torch.int64
    assert ((at_least <= counts) & (counts <= at_most)).all(), (at_least, counts, at_most)


def sum_of_logs(truth: Tensor, shifts: Tensor) -> Tensor:
    return (truth - shifts[:, None]).abs().log().sum(1)


def spread(truth: Tensor, count: int) -> Tensor:
    """Shifts from below the spectrum to above it, irregular so that none is a midpoint by symmetry."""
    margin = 0.1 * max((truth[-1] - truth[0]).item(), truth.abs().max().item())
    steps = torch.linspace(0, 1, count, dtype=torch.float64) ** 1.1
    return truth[0] - margin + steps * (truth[-1] - truth[0] + 2.07 * margin)


def upper_half_plane(truth: Tensor, count: int, height: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    re = spread(truth, count)
    return torch.complex(re, height * (0.5 + torch.rand(count, generator=generator, dtype=torch.float64)))


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", HALF_WIDTHS)
@pytest.mark.parametrize("n", ORDERS)
def test_counts_of_random_bands(n: int, b: int, dtype: torch.dtype, backend: str) -> None:
    band = random_band(n, b, dtype)
    truth = eigenvalues(band)
    shifts = spread(truth, 19)
    counts = count_below(band, shifts, backend=backend)
    assert_admissible(counts, truth, shifts, backward_error(band))
    assert counts[0] == 0
    assert counts[-1] == n


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", HALF_WIDTHS)
@pytest.mark.parametrize("n", ORDERS)
def test_log_abs_det_of_random_bands(n: int, b: int, dtype: torch.dtype, backend: str) -> None:
    band = random_band(n, b, dtype)
    truth = eigenvalues(band)
    shifts = upper_half_plane(truth, 19, 0.3)
    values = log_abs_det(band, shifts, backend=backend)
    tolerance = 100 * n * torch.finfo(dtype).eps * max(1, truth.abs().max().item()) / 0.15
    torch.testing.assert_close(values, sum_of_logs(truth, shifts), rtol=0, atol=tolerance)


@both_backends
@pytest.mark.parametrize(("height", "tolerance"), [(1e-3, 1e-9), (1e-6, 1e-7), (1e-10, 1e-5)])
@pytest.mark.parametrize("b", [1, 5, 32])
def test_log_abs_det_close_to_the_real_axis(b: int, height: float, tolerance: float, backend: str) -> None:
    # The condition is |sum 1 / (lambda_i - z)|, and a leading block may be nearer to singular than B: the tolerance
    # grows towards the axis.
    band = random_band(257, b)
    truth = eigenvalues(band)
    shifts = upper_half_plane(truth, 37, height)
    values = log_abs_det(band, shifts, backend=backend)
    torch.testing.assert_close(values, sum_of_logs(truth, shifts), rtol=0, atol=tolerance)


@both_backends
@both_dtypes
def test_log_abs_det_left_of_the_spectrum(dtype: torch.dtype, backend: str) -> None:
    band = random_band(100, 5, dtype)
    truth = eigenvalues(band)
    shifts = (truth[0] - torch.tensor([1.0, 10.0, 1e4, 1e30], dtype=torch.float64)).to(torch.complex128)
    values = log_abs_det(band, shifts, backend=backend)
    torch.testing.assert_close(values, sum_of_logs(truth, shifts), rtol=0, atol=1e4 * torch.finfo(dtype).eps)


@both_backends
@both_dtypes
def test_log_abs_det_of_real_and_complex_shifts_by_turns(dtype: torch.dtype, backend: str) -> None:
    band = random_band(100, 5, dtype)
    truth = eigenvalues(band)
    shifts = upper_half_plane(truth, 40, 0.3)
    shifts[1::2] = truth[0] - torch.linspace(0.5, 20, 20, dtype=torch.float64)
    values = log_abs_det(band, shifts, backend=backend)
    tolerance = 100 * 100 * torch.finfo(dtype).eps * truth.abs().max().item() / 0.15
    torch.testing.assert_close(values, sum_of_logs(truth, shifts), rtol=0, atol=tolerance)


@both_backends
def test_log_abs_det_between_eigenvalues(backend: str) -> None:
    band = random_band(100, 5)
    truth = eigenvalues(band)
    inside = 0.5 * (truth[1:] + truth[:-1])  # every number of negative pivots
    values = log_abs_det(band, inside.to(torch.complex128), backend=backend)
    torch.testing.assert_close(values, sum_of_logs(truth, inside), rtol=0, atol=1e-9)


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", [0, 1, 4, 7])
def test_integer_spectrum_with_repeats(b: int, dtype: torch.dtype, backend: str) -> None:
    values = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 0, 0, -7, -7, 100], dtype=torch.float64)
    band = torch.zeros(16, b + 1, dtype=dtype)
    band[:, 0] = values.to(dtype)
    between = torch.arange(-8, 102, dtype=torch.float64) + 0.5
    counts = count_below(band, between, backend=backend)
    assert torch.equal(counts, (values < between[:, None]).sum(1))
    at = torch.arange(-8, 102, dtype=torch.float64)
    counts = count_below(band, at, backend=backend)
    assert ((values < at[:, None]).sum(1) <= counts).all()
    assert (counts <= (values <= at[:, None]).sum(1)).all()


@both_backends
@both_dtypes
def test_shifts_at_known_eigenvalues_with_fill(dtype: torch.dtype, backend: str) -> None:
    # Squared path Laplacian: b = 2, eigenvalues (2 - 2 cos(pi k / (n + 1)))^2; shift 4 and shift 1 are exact ones.
    n = 11
    band = torch.zeros(n, 3, dtype=dtype)
    band[:, 0], band[:, 1], band[:, 2] = 6, -4, 1
    band[0, 0] = band[-1, 0] = 5
    truth = (2 - 2 * torch.cos(torch.pi * torch.arange(1, n + 1, dtype=torch.float64) / (n + 1))) ** 2
    shifts = torch.cat([truth, torch.tensor([1.0, 4.0, 9.0, 0.0, 16.0], dtype=torch.float64)])
    assert_admissible(count_below(band, shifts, backend=backend), truth, shifts, backward_error(band))


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", [2, 5])
def test_repeated_eigenvalues(b: int, dtype: torch.dtype, backend: str) -> None:
    # Equal decoupled blocks: every eigenvalue of the block 8 times.
    block = random_band(b + 1, b, dtype, seed=7)
    block[torch.isnan(block)] = 0
    band = block.repeat(8, 1)
    truth = eigenvalues(block).repeat_interleave(8)
    shifts = torch.cat([spread(truth, 23), truth])
    assert_admissible(count_below(band, shifts, backend=backend), truth, shifts, backward_error(band))


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", [0, 1, 8])
def test_zero_matrix(b: int, dtype: torch.dtype, backend: str) -> None:
    band = torch.zeros(13, b + 1, dtype=dtype)
    shifts = torch.tensor([-1.0, -1e-300, 0.0, 1e-300, 1.0], dtype=torch.float64)
    counts = count_below(band, shifts, backend=backend)
    assert counts[[0, 1]].tolist() == [0, 0] or (dtype == torch.float32 and counts[0] == 0)
    assert counts[4] == 13
    assert ((counts >= 0) & (counts <= 13)).all()
    z = torch.tensor([1j, 1e-300j, 1e300 + 1e-3j, -2.0], dtype=torch.complex128)
    values = log_abs_det(band, z, backend=backend)
    torch.testing.assert_close(values, 13 * z.abs().log(), rtol=1e-7, atol=1e-13)


@both_backends
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float64, 1e-200),
        (torch.float64, 1e-300),
        (torch.float64, 1e200),
        (torch.float64, 1e300),
        (torch.float32, 1e-36),
        (torch.float32, 1e36),
    ],
)
def test_tiny_and_huge_scales(dtype: torch.dtype, scale: float, backend: str) -> None:
    unit = random_band(57, 6, dtype)
    truth = eigenvalues(unit)
    shifts = spread(truth, 21)
    band = (unit.double() * scale).to(dtype)
    assert_admissible(count_below(band, shifts * scale, backend=backend), truth, shifts, backward_error(unit))
    far = torch.tensor([-torch.inf, -1e308, 1e308, torch.inf], dtype=torch.float64)
    if scale < 1e300:
        assert count_below(band, far, backend=backend).tolist() == [0, 0, 57, 57]
    z = upper_half_plane(truth, 21, 0.5)
    values = log_abs_det(band, z * scale, backend=backend)
    tolerance = 1e4 * torch.finfo(dtype).eps
    torch.testing.assert_close(values, sum_of_logs(truth, z) + 57 * np.log(scale), rtol=1e-14, atol=tolerance * 10)


@both_backends
def test_a_shift_far_from_a_tiny_matrix(backend: str) -> None:
    band = random_band(20, 3) * 1e-200
    z = torch.tensor([1.0 + 1.0j, -3.0, 1e300 + 1e300j], dtype=torch.complex128)
    torch.testing.assert_close(log_abs_det(band, z, backend=backend), 20 * z.abs().log(), rtol=1e-13, atol=0)


@both_backends
@both_dtypes
def test_graded_band_keeps_its_bulk(dtype: torch.dtype, backend: str) -> None:
    # A few eigenvalues 1e6 times the bulk at the head, as the outlier rotation leaves them.
    band = random_band(120, 4, dtype, seed=3)
    band[:3] *= 1e6
    band[:3, 0] = 5e6
    band[3:7] += 0.01
    truth = eigenvalues(band)
    bulk = truth[truth.abs() < 100]
    shifts = spread(bulk, 33)
    counts = count_below(band, shifts, backend=backend)
    expected = (truth < shifts[:, None]).sum(1)
    assert (counts - expected).abs().max() <= (0 if dtype == torch.float64 else 1)


@both_backends
@both_dtypes
def test_structured_zero_pivots_stay_finite(dtype: torch.dtype, backend: str) -> None:
    # Zero diagonal and equal entries: pivots that are exactly zero, then blocks that cancel.
    for b in (1, 2, 3, 8):
        band = torch.ones(40, b + 1, dtype=dtype)
        band[:, 0] = 0
        truth = eigenvalues(band)
        shifts = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
        counts = count_below(band, shifts, backend=backend)
        assert ((counts >= 0) & (counts <= 40)).all()
        z = torch.complex(shifts, torch.full_like(shifts, 1e-300))
        assert torch.isfinite(log_abs_det(band, z, backend=backend)).all()
        apart = spread(truth, 29)
        z = torch.complex(apart, torch.full_like(apart, 0.01))
        tolerance = 1e5 * torch.finfo(dtype).eps * 40
        torch.testing.assert_close(log_abs_det(band, z, backend=backend), sum_of_logs(truth, z), rtol=0, atol=tolerance)


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", [2, 3, 5])
def test_vanishing_pivots_leave_counts_admissible(b: int, dtype: torch.dtype, backend: str) -> None:
    # Entries -1, 0, 1 and integer shifts: about every second factorisation meets a pivot that is exactly zero.
    shifts = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    for seed in range(20):
        generator = torch.Generator().manual_seed(100 * b + seed)
        band = torch.randint(-1, 2, (40, b + 1), generator=generator).to(dtype)
        counts = count_below(band, shifts, backend=backend)
        assert_admissible(counts, eigenvalues(band), shifts, 3e-7 if dtype == torch.float64 else 3e-3)


@both_backends
def test_log_abs_det_of_a_pivot_on_the_wrong_side(backend: str) -> None:
    # Behind one that nearly vanishes rounding turns the sign of an imaginary part that is large: its size still counts.
    band = torch.randint(-1, 2, (40, 17), generator=torch.Generator().manual_seed(1644)).double()
    z = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64) + 1e-8j
    expected = sum_of_logs(eigenvalues(band), z)
    torch.testing.assert_close(log_abs_det(band, z, backend=backend), expected, rtol=0, atol=1e-6)


@both_backends
@both_dtypes
@pytest.mark.parametrize("b", [1, 16, 33])
def test_counts_grow_with_the_shift(b: int, dtype: torch.dtype, backend: str) -> None:
    band = random_band(257, b, dtype)
    counts = count_below(band, spread(eigenvalues(band), 300), backend=backend)
    drops = (counts[:-1] - counts[1:]).clamp(min=0)
    assert drops.max() <= (0 if dtype == torch.float64 else 1)


@both_backends
@both_dtypes
def test_multisection_finds_order_statistics(dtype: torch.dtype, backend: str) -> None:
    band = random_band(100, 8, dtype)
    truth = eigenvalues(band)
    for k in (0, 1, 24, 50, 98, 99):
        low, high = truth[0].item() - 1, truth[-1].item() + 1
        for _ in range(12):  # 33^12 > 2^60
            shifts = torch.linspace(low, high, 34, dtype=torch.float64)[1:-1]
            counts = count_below(band, shifts, backend=backend).tolist()
            # The smallest shift with more than k eigenvalues below it, and the one before.
            hit = next((i for i, count in enumerate(counts) if count > k), len(counts))
            low = shifts[hit - 1].item() if hit > 0 else low
            high = shifts[hit].item() if hit < len(counts) else high
        assert abs(low - truth[k].item()) <= backward_error(band)


@both_backends
@pytest.mark.parametrize("n", [1, 2, 40, 130])
@pytest.mark.parametrize("enough", [0.0, 1e-9, 1e-3])
def test_narrow_among_equal_and_lone_values(n: int, enough: float, backend: str) -> None:
    # Equal values, pairs 1e-7 apart, small ones, and what lies alone, behind a rotation of neighbours, so that the
    # band has fill.
    squares = torch.linspace(5, 9, n, dtype=torch.float64) ** 2
    squares[: n // 4] = 4.0
    squares[n // 4 : n // 4 + 4 : 2] += 1e-7
    squares[n - n // 8 :] = 1e-6
    band = torch.zeros(1, n, 3, dtype=torch.float64)
    band[0, :, 0] = squares
    for j in range(0, n - 1, 2):
        a, c = squares[j].item(), squares[j + 1].item()
        band[0, j, 0], band[0, j + 1, 0], band[0, j, 1] = (a + c) / 2, (a + c) / 2, (a - c) / 2
    truth = eigenvalues(band[0]).clamp(min=0).sqrt()
    ranks = torch.arange(n)
    lo, hi = torch.zeros(1, n, dtype=torch.float64), torch.full((1, n), 16.0, dtype=torch.float64)
    with use_backend(backend):
        lo, hi = narrow(band, lo, hi, ranks, torch.full((1, n), enough, dtype=torch.float64))
    between = torch.nextafter(lo, hi) < hi
    assert not (between & (hi - lo > enough)).any()
    slack = 1e-7 + 1e-14 / truth.clamp(min=1e-7)  # of a root near zero
    assert ((lo[0] - slack <= truth) & (truth <= hi[0] + slack)).all()


@both_backends
@both_dtypes
def test_any_number_of_shifts(dtype: torch.dtype, backend: str) -> None:
    band = random_band(33, 5, dtype)
    truth = eigenvalues(band)
    all_shifts = spread(truth, 40)
    all_z = upper_half_plane(truth, 40, 0.4)
    counts, values = count_below(band, all_shifts, backend=backend), log_abs_det(band, all_z, backend=backend)
    for s in (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33):
        assert torch.equal(count_below(band, all_shifts[:s], backend=backend), counts[:s])
        torch.testing.assert_close(log_abs_det(band, all_z[:s], backend=backend), values[:s], rtol=1e-12, atol=1e-12)


def test_non_contiguous_operands() -> None:
    band = random_band(33, 5)
    truth = eigenvalues(band)
    shifts = spread(truth, 40)
    expected = count_below(band, shifts, backend="reference")
    assert torch.equal(count_below(band.T.contiguous().T, shifts.repeat_interleave(2)[::2], backend="native"), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_band_has_admissible_counts_and_logs(data: st.DataObject) -> None:
    n, b = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 6))
    entry = st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4, width=32))
    numbers = data.draw(st.lists(entry, min_size=n * (b + 1), max_size=n * (b + 1)))
    band = torch.tensor(numbers, dtype=torch.float64).reshape(n, b + 1)
    truth = eigenvalues(band)
    shifts = torch.tensor(data.draw(st.lists(entry, min_size=1, max_size=9)), dtype=torch.float64)
    z = torch.complex(shifts, torch.full_like(shifts, 0.125))
    for backend in BACKENDS:
        counts = count_below(band, shifts + 1e-3, backend=backend)
        assert_admissible(counts, truth, shifts + 1e-3, 1e-8)
        assert_admissible(count_below(band, shifts, backend=backend), truth, shifts, 1e-2)  # pivots may vanish
        torch.testing.assert_close(log_abs_det(band, z, backend=backend), sum_of_logs(truth, z), rtol=0, atol=1e-9)


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set(isa: str, tmp_path) -> None:
    cases, truths = [], []
    for dtype in DTYPES:
        for n, b in [(1, 1), (3, 5), (33, 2), (100, 33), (257, 16), (70, 64)]:
            band = random_band(n, b, dtype)
            truth = eigenvalues(band)
            left = (truth[0] - torch.arange(1.0, 14.0, dtype=torch.float64)).to(torch.complex128)
            cases.append((band, spread(truth, 37), torch.cat([left, upper_half_plane(truth, 21, 0.3)])))
            truths.append(truth)
    torch.save(cases, tmp_path / "cases.pt")
    needed = {"portable": None, "avx2": "avx2_fma", "avx512": "avx512"}[isa]
    result = run_at_level(isa, needed, "sturm_at_level", str(tmp_path / "cases.pt"))
    assert result["kernel"] == isa
    for (band, shifts, z), truth, counts, logs in zip(cases, truths, result["counts"], result["logs"], strict=True):
        assert_admissible(torch.tensor(counts), truth, shifts, backward_error(band))
        values = torch.tensor(logs, dtype=torch.float64)
        tolerance = 100 * len(band) * torch.finfo(band.dtype).eps * max(1, truth.abs().max().item()) / 0.15
        torch.testing.assert_close(values, sum_of_logs(truth, z), rtol=0, atol=tolerance)


@both_backends
def test_refused_operands(backend: str) -> None:
    band = random_band(10, 2)
    x, z = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.complex128) * 1j
    with pytest.raises(TypeError, match="band"):
        count_below(torch.zeros(10, 3, dtype=torch.int64), x, backend=backend)
    with pytest.raises(TypeError, match="float64"):
        count_below(band, x.float(), backend=backend)
    with pytest.raises(TypeError, match="complex128"):
        log_abs_det(band, x, backend=backend)
    with pytest.raises(ValueError, match="shape"):
        count_below(band[0], x, backend=backend)
    with pytest.raises(ValueError, match="shape"):
        count_below(torch.zeros(0, 3), x, backend=backend)
    with pytest.raises(ValueError, match="shifts: expected shape"):
        count_below(band, x[None], backend=backend)
    with pytest.raises(ValueError, match="NaN"):
        count_below(band, x * torch.nan, backend=backend)
    with pytest.raises(ValueError, match="imaginary"):
        log_abs_det(band, -z, backend=backend)
    with pytest.raises(ValueError, match="imaginary"):
        log_abs_det(band, z * torch.inf, backend=backend)
    for wrong in (torch.nan, torch.inf):
        broken = band.clone()
        broken[4, 1] = wrong
        with pytest.raises(ValueError, match="bands: expected finite"):
            count_below(broken, x, backend=backend)
        with pytest.raises(ValueError, match="bands: expected finite"):
            log_abs_det(broken, z, backend=backend)
    with pytest.raises(UsageError):
        count_below(band, x, backend="fast")


def test_border_of_the_extension() -> None:
    from spectrum_fast import _native

    bands, x = random_band(10, 2)[None], torch.zeros(1, 3, dtype=torch.float64)
    out = torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match="out"):
        _native.count_below(bands, x, out.int())
    with pytest.raises(TypeError, match="bands"):
        _native.count_below(bands.half(), x, out)
    with pytest.raises(ValueError, match="out"):
        _native.count_below(bands, x, out[:, :2])
    with pytest.raises(ValueError, match="contiguous"):
        _native.count_below(bands[:, :, ::2], x, out)
    with pytest.raises(ValueError, match="contiguous"):
        _native.count_below(bands, x, torch.zeros(1, 6, dtype=torch.int64)[:, ::2])
    with pytest.raises(ValueError, match="dimensions"):
        _native.count_below(bands, x[0], out)
    with pytest.raises(ValueError, match=r"expected shape \(2, s\)"):
        _native.count_below(bands.repeat(2, 1, 1), x, out)
    with pytest.raises(TypeError, match="shifts"):
        _native.log_abs_det(bands, x, torch.zeros(1, 3, dtype=torch.float64))


def test_half_precision_bands_are_computed_in_float32() -> None:
    band = random_band(50, 3, torch.bfloat16)
    truth = eigenvalues(band)
    shifts = spread(truth, 19)
    counts = count_below(band, shifts, backend="reference")
    assert_admissible(counts, truth, shifts, backward_error(band.float()))
