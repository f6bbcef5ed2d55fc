"""Batches on CUDA tensors: right, within its stated bounds, and without a wait that nobody counted."""

from __future__ import annotations

import warnings

import pytest
import torch

from spectrum_fast.measure.ops.decode import decode
from spectrum_fast.measure.ops.decode.coded import from_parts
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra import arrays
from spectrum_fast.measure.spectra.arrays import to_device
from spectrum_fast.measure.spectra.device_check import require_right_answers
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.matrices import as_matrices
from spectrum_fast.measure.spectra.methods import band as band_method
from spectrum_fast.measure.spectra.record import Spectrum

from support import coded_weights, matrices, truth

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CRITERION = find_criterion("spectrum")


def test_numbers_reach_the_device() -> None:
    assert torch.equal(to_device([3, 1], torch.int64, torch.device("cpu")), torch.tensor([3, 1]))


@pytest.mark.gpu
@needs_gpu
def test_constants_that_one_stream_has_made_another_may_use() -> None:
    numbers, beside = (3.0, 1.0, 0.125), torch.zeros(1, device="cuda:0")
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(first):
        arrays.constants(numbers, beside)
    with torch.cuda.stream(second):
        assert (arrays.constants(numbers, beside) + 1).tolist() == [4.0, 2.0, 1.125]


@pytest.mark.gpu
@needs_gpu
def test_slices_can_be_captured_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the host they copy nothing that is gone when the graph is replayed, and nothing is waited for."""
    weights = [matrices.trained_like(260, 300, outliers=(3.0,), seed=seed).bfloat16().cuda() for seed in range(2)]
    kept: list[tuple] = []
    plain = band_method.slice_bands
    monkeypatch.setattr(band_method, "slice_bands", lambda *of: kept.append(of) or plain(*of))
    compute_spectra(weights, CRITERION)
    monkeypatch.setattr(arrays, "to_device", None)
    expected, graph = plain(*kept[0]), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = plain(*kept[0])
    graph.replay()
    assert torch.equal(found, expected)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("rows", "columns", "count"), [(1111, 640, 3), (1024, 3072, 2), (2048, 2560, 2)])
def test_stated_bounds_hold(rows: int, columns: int, count: int, dtype: torch.dtype) -> None:
    weights = [
        # Of seed 0, a value of the 2048 x 2560 lies within rounding of the threshold.
        matrices.trained_like(rows, columns, outliers=(300.0,) if seed == 1 else (20.0,), seed=seed).to(dtype).cuda()
        for seed in range(1, count + 1)
    ]
    for weight, found in zip(weights, compute_spectra(weights, CRITERION), strict=True):
        assert isinstance(found, Spectrum)
        assert found.method.startswith("band-float32"), found.reason
        assert found.reason.startswith("batch"), found.reason
        truth.assert_matches(weight, found)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
@pytest.mark.parametrize(("rows", "columns"), [(1100, 640), (1024, 3072)])
def test_stated_bounds_hold_for_codes(rows: int, columns: int, kind: str) -> None:
    weights = [one.to("cuda") for one in coded_weights.batch(kind, 3, rows, columns)]
    for weight, found in zip(weights, compute_spectra(weights, CRITERION), strict=True):
        assert isinstance(found, Spectrum)
        assert found.reason.startswith("batch"), found.reason
        truth.assert_matches(decode(weight), found)


@pytest.mark.gpu
@needs_gpu
def test_no_numbers_are_made_of_fp8_codes() -> None:
    """Memory for codes, a copy of them and the results; numbers would take four times as much."""
    codes = torch.randint(0, 0x7E, (256, 1 << 17), dtype=torch.uint8, device="cuda").view(torch.float8_e4m3fn)
    weights = [from_parts(codes, torch.full((2, 1 << 10), 1e-3, device="cuda"))] * 2
    batch = as_matrices(weights)
    batch.extents(), batch.gram(torch.float32)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    batch.extents(), batch.gram(torch.float32)
    assert torch.cuda.max_memory_allocated() - before < 1.2 * 2 * codes.nbytes


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("outlier", "expected"), [(3.0, 3), (30.0, 6)], ids=["plain", "spiky"])
def test_the_host_waits_three_times_a_batch(outlier: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For extents, spikiness and records; where outliers are rotated, three times more in finding them."""
    weights = [matrices.trained_like(520, 640, outliers=(outlier,), seed=seed).bfloat16().cuda() for seed in range(3)]
    compute_spectra(weights, CRITERION)  # compiled, and pinned memory at hand
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            compute_spectra(weights, CRITERION)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    said = [str(wait.message) for wait in waits if "synchroniz" in str(wait.message)]
    assert len(said) == expected, said

    def without_a_wait(stage):
        def run(*arguments: object, **options: object) -> object:
            torch.cuda.set_sync_debug_mode("error")
            try:
                return stage(*arguments, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return run

    for name in ("square", "measure_gram_error", "estimate_rounding", "reduce_to_band", "slice_bands"):
        monkeypatch.setattr(band_method, name, without_a_wait(getattr(band_method, name)))
    compute_spectra(weights, CRITERION)


@pytest.mark.gpu
@needs_gpu
def test_known_spectra_come_out_right() -> None:
    require_right_answers.__wrapped__("cuda", CRITERION)
