"""Batches against float64 SVD, and the fixed schedule against the adaptive one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra import engine
from spectrum_fast.measure.spectra.binning import bins_of
from spectrum_fast.measure.spectra.engine import ROTATED_SIDE, compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.methods import band
from spectrum_fast.measure.spectra.methods.band import half_width
from spectrum_fast.measure.spectra.record import OrderStatistics, Spectrum
from spectrum_fast.measure.spectra.rotation import ROTATION_RANK
from spectrum_fast.measure.spectra.schedule import FIXED
from spectrum_fast.read.formats.codes import Codes

from support import bounds, coded_weights, families, matrices, truth

CRITERION = find_criterion("spectrum")


def compute_by(backend: str, weights: list[torch.Tensor] | list[Codes]) -> list[Spectrum | Exception]:
    with use_backend(backend):
        return compute_spectra(weights, CRITERION)


def draw_batch(name: str, rows: int, columns: int, count: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Matrices of one family and shape, of a scale that a batch takes."""
    batch = []
    for seed in range(count):
        matrix = families.FAMILIES[name](np.random.default_rng([seed, *name.encode()]), rows, columns)
        matrix = matrix[:rows, :columns] / max(float(np.abs(matrix).max()), 1e-30)
        if matrix.shape == (rows, columns):
            batch.append(torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype))
    return batch


@pytest.mark.parametrize("backend", ["auto", MODEL])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_stated_bounds_hold(name: str, backend: str) -> None:
    for rows, columns in ((208, 300), (260, 200)):
        weights = draw_batch(name, rows, columns, 3, torch.bfloat16)
        if not weights:
            continue
        for weight, found in zip(weights, compute_by(backend, weights), strict=True):
            assert isinstance(found, Spectrum)
            case = f"{name} {rows}x{columns} {backend}: {found.method}, {found.reason}"
            verdict = bounds.judge(bounds.Truth.of(weight), CRITERION, found)
            assert verdict.ratio <= 1, f"{case}: error {verdict.error:.1e}, bound {verdict.bound:.1e}"
            assert verdict.bound <= 1e-4 or name == "badly_scaled", case
            assert sum(found.histogram.counts) == min(rows, columns), case


@pytest.mark.parametrize("criterion", ["spectrum", "mp"])
def test_trained_like_batches_need_no_second_look_and_both_schedules_agree(
    criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = find_criterion(criterion)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(4, 768, 900, generator=generator) * 0.02
    weights += torch.randn(4, 768, 12, generator=generator) @ torch.randn(4, 12, 900, generator=generator) * 0.005
    weights[3:] += 0.5 * torch.randn(1, 768, 1, generator=generator) @ torch.randn(1, 1, 900, generator=generator)
    batch = weights.to(torch.bfloat16)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "ADAPTIVE", FIXED)
        patch.setattr(band, "half_width", lambda size, rank=0, **_: half_width(size, rank))
        found = compute_spectra(batch, rule)
    for weight, one in zip(batch, found, strict=True):
        alone = compute_spectrum(weight, rule)
        assert isinstance(one, Spectrum)
        assert one.reason.startswith("batch of")
        assert one.method == alone.method
        assert one.snr == pytest.approx(alone.snr, rel=one.error_bound + alone.error_bound)
        for field in ("q25", "q50", "q75", "s_max", "s_min", "threshold", "signal_sum", "noise_sum"):
            assert getattr(one, field) == pytest.approx(getattr(alone, field), rel=1e-5), field
        assert (one.n_signal, one.n_noise) == (alone.n_signal, alone.n_noise)
        assert sum(abs(a - b) for a, b in zip(one.histogram.counts, alone.histogram.counts, strict=True)) <= 4
        assert one.histogram.edges == pytest.approx(alone.histogram.edges, rel=1e-5)
    assert {one.method for one in found if isinstance(one, Spectrum)} == {"band-float32", "band-float32-rotated"}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("backend", ["auto", MODEL])
@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_weights_in_codes_come_to_what_their_numbers_come_to(
    kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them one with outliers, one that is all zero and one with a scale that is no number."""
    coded = coded_weights.batch(kind, 7, 224, 320)
    coded[2].codes.view(torch.uint8).zero_()
    coded[4].scale.fill_(math.nan if kind == "fp8" else 255)
    monkeypatch.setattr(
        "spectrum_fast.measure.spectra.matrices.coded.DECODED_BYTES", 3 * 224 * 320 * 4
    )  # more than one turn
    found = compute_by(backend, coded)
    expected = compute_by(backend, [decode(weight) for weight in coded])
    assert len(found) == 7
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        if index == 4:
            assert isinstance(one, TensorError)
            assert str(one) == str(other)
        else:
            assert one == other
    expected_methods = {"band-float32", "band-float32-rotated"} if backend == MODEL else {"band-float64"}
    assert {one.method for one in found if isinstance(one, Spectrum)} == {"exact", *expected_methods}


def test_numbers_and_codes_in_one_batch_are_refused() -> None:
    (coded,) = coded_weights.batch("fp8", 1, 224, 320)
    with pytest.raises(TypeError, match="found 1 of numbers and 1 in codes"):
        compute_spectra([coded, decode(coded)], CRITERION)


def test_what_a_batch_does_not_serve_is_computed_alone_in_its_place() -> None:
    good = torch.randn(220, 240, generator=torch.Generator().manual_seed(1))
    broken, huge = good.clone(), good * 2.0**60
    broken[3, 4] = math.nan
    found = compute_spectra([good, broken, torch.zeros_like(good), huge, good], CRITERION)
    assert isinstance(found[1], TensorError)
    assert "NaN" in str(found[1])
    first, zero, third, last = found[0], found[2], found[3], found[4]
    assert isinstance(first, Spectrum)
    assert isinstance(zero, Spectrum)
    assert isinstance(third, Spectrum)
    assert zero.snr == 0.0
    assert first == last
    assert third.q50 == pytest.approx(first.q50 * 2.0**60, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 100), (150, 180)])
def test_small_matrices_go_to_the_svd(shape: tuple[int, int]) -> None:
    weights = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    found = compute_spectra(weights, CRITERION)
    assert [one.method for one in found if isinstance(one, Spectrum)] == ["svd-float64"] * 2


def test_an_empty_batch() -> None:
    assert compute_spectra([], CRITERION) == []


@pytest.mark.parametrize(
    ("size", "on_units", "on_gpu", "width"),
    [
        (1024, True, False, 16),
        (2048, False, False, 16),
        (2048, True, False, 32),
        (2049, False, False, 32),
        (512, False, True, 32),
    ],
)
def test_bands_are_narrow_where_slices_gain_more_than_the_reduction_loses(
    size: int, on_units: bool, on_gpu: bool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(band, "on_matrix_units", lambda: on_units)
    assert half_width(size, on_gpu=on_gpu) == width
    assert half_width(size, ROTATION_RANK, on_gpu=on_gpu) == 32


@pytest.mark.parametrize("outliers", [(300.0,), tuple(200.0 + 50 * index for index in range(12))])
def test_outliers_in_the_first_rows_do_not_set_the_scale_of_the_rest(outliers: tuple[float, ...]) -> None:
    # The GPU's products are of float16 halves, scaled as a whole: under the outliers' scale the bulk has 10 bits.
    assert half_width(640, on_gpu=True) >= ROTATION_RANK
    weight = matrices.trained_like(800, 640, outliers=outliers).bfloat16()
    found = compute_by(MODEL, [weight])[0]
    assert isinstance(found, Spectrum)
    assert found.method == "band-float32-rotated"
    assert found.reason.startswith("batch")
    truth.assert_matches(weight, found)
    assert found.q25 == pytest.approx(truth.exact(weight).q25, rel=1e-5)


def test_a_result_does_not_depend_on_its_neighbours() -> None:
    weights = torch.randn(5, 256, 300, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    together = compute_spectra(weights, CRITERION)
    for one, weight in zip(together, weights, strict=True):
        alone = compute_spectra(weight[None], CRITERION)[0]
        assert isinstance(one, Spectrum)
        assert isinstance(alone, Spectrum)
        assert one.snr == pytest.approx(alone.snr, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 1.0, 2.0, 3.0, 4.0), (0.0, 4.0, 4.0, 64)),  # no tail: the knee at 9 lies beyond the largest
        ((1.0, 1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1)),  # one value
        ((0.5, 0.6, 0.7, 0.8, 90.0), (0.5, 1.4, 90.0, 48)),  # a bulk to q75 + 3 (q75 - q25), and a tail
        ((0.0, 0.0, 0.0, 0.0, 5.0), (0.0, 5.0, 5.0, 64)),  # no spread to set a knee by
    ],
)
def test_bins_suit_the_order_statistics(values: tuple[float, ...], expected: tuple[float, float, float, int]) -> None:
    bins = bins_of(OrderStatistics(*(torch.tensor([value], dtype=torch.float64) for value in values)))  # type: ignore[arg-type]
    start, knee, end, linear = expected
    assert (float(bins.start), float(bins.end), int(bins.linear_bins)) == (start, end, linear)
    assert float(bins.knee) == pytest.approx(knee, rel=1e-12)
    if linear > 1:
        edges = Histogram(start, float(bins.knee), end, linear, (0,) * 64).edges
        assert bins.inner[0].numpy() == pytest.approx(edges[1:-1], rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((300, 260), torch.float64),
        ((200, 200), torch.bfloat16),
        ((260, 600), torch.bfloat16),
        ((600, 260), torch.float32),
        ((768, 800), torch.bfloat16),
    ],
    ids=str,
)
def test_a_small_matrix_gets_the_same_bits_whatever_goes_beside_it(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """By every method: plain, rotated, in float64; a scan may cut its batches wherever it likes."""
    weights = [matrices.gaussian(*shape, seed) for seed in range(3 if shape[0] > 600 else 15)]
    weights += [matrices.trained_like(*shape, outliers=(60.0, 9.0), seed=seed) for seed in range(2)]
    weights += [torch.sign(weights[2]) * 0.03, torch.zeros(shape)]
    batch = [weight.to(dtype) for weight in weights]
    alone = [compute_spectrum(weight, CRITERION) for weight in batch]
    assert compute_spectra(batch, CRITERION) == alone
    assert compute_spectra(batch[:0:-1], CRITERION) == alone[:0:-1]
    methods = {one.method for one in alone} - {"exact"}
    if min(shape) >= ROTATED_SIDE:
        assert methods == {"band-float32", "band-float32-rotated"}
    else:
        assert methods == ({"band-float32", "band-float64"} if max(shape) == 600 else {"band-float64"})
