"""Which backend serves what, and what is refused."""

from __future__ import annotations

import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import BackendUnavailableError, UsageError
from spectrum_fast.measure.ops.dispatch import choose_backend, native_problem, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectrum

from support import matrices, truth
from support.operations import gram, reduce_to_band


def test_auto_takes_the_compiled_kernels_on_a_cpu() -> None:
    assert native_problem() is None, "the compiled extension must load where the tests run"
    for operation in ("extent", "gram", "band", "sturm"):
        assert choose_backend(operation, "cpu") == "native"


def test_auto_takes_triton_on_a_gpu_where_it_exists_and_torch_elsewhere() -> None:
    pytest.importorskip("triton")
    for operation in ("band", "gram", "sturm"):
        assert choose_backend(operation, "cuda") == "triton"
    assert choose_backend("values", "cuda") == "reference"


@pytest.mark.parametrize(
    ("operation", "device", "backend", "words"),
    [
        ("gram", "cuda", "native", "runs on cpu tensors, found a tensor on 'cuda'"),
        ("gram", "cpu", "triton", "runs on cuda tensors, found a tensor on 'cpu'"),
        ("values", "cuda", "triton", "no form of 'values'"),
    ],
)
def test_a_named_backend_runs_or_raises(operation: str, device: str, backend: str, words: str) -> None:
    with use_backend(backend), pytest.raises(BackendUnavailableError, match=words):
        choose_backend(operation, device)


def test_unknown_backend() -> None:
    with pytest.raises(UsageError, match="auto, reference, native, triton"):
        gram(torch.eye(2), backend="cublas")


@pytest.mark.parametrize("outliers", [(), (400.0,)])
def test_the_whole_pipeline_in_torch_operations(outliers: tuple[float, ...]) -> None:
    """The path that a GPU takes, on CPU tensors: same orchestration, no compiled kernel."""
    weight = matrices.trained_like(230, 260, outliers=outliers, seed=21).to(torch.float32)
    with use_backend("reference"):
        found = compute_spectrum(weight, find_criterion("spectrum"), method="band")
    expected = truth.exact(weight)
    assert abs(found.snr / expected.snr - 1) <= found.error_bound <= 1e-4
    assert found.n_noise == expected.n_noise
    assert found.snr == pytest.approx(sf.spectrum(weight, method="band").snr, rel=1e-4)
    assert ("rotated" in found.method) == bool(outliers)


def test_band_reference_and_native_agree() -> None:
    squares = gram(matrices.gaussian(90, 120, seed=22), out_dtype=torch.float64)
    spectra = []
    for backend in ("reference", "native"):
        band = reduce_to_band(squares.clone(), 8, backend=backend)
        dense = torch.zeros(90, 90, dtype=torch.float64)
        for d in range(9):
            dense.diagonal(-d).copy_(band[: 90 - d, d])
        spectra.append(torch.linalg.eigvalsh(dense))
    assert torch.allclose(spectra[0], spectra[1], rtol=0, atol=1e-11 * float(spectra[0][-1]))
