"""Thresholds against their definitions, and the calibration of the corrected criterion on pure noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import CALIBRATED_SIDE, find_criterion
from spectrum_fast.measure.scoring.marchenko_pastur import (
    median_eigenvalue,
    noise_scale,
    singular_value_density,
    upper_edge,
)
from spectrum_fast.measure.spectra.record import OrderStatistics

STATISTICS = OrderStatistics(s_min=0.1, q25=1.0, q50=2.0, q75=4.0, s_max=10.0)


def test_reference_rule_is_the_published_formula() -> None:
    rule = find_criterion("spectrum")
    assert rule.threshold(STATISTICS, 100, 400) == pytest.approx(3.0 / 1.349 * 1.5)
    assert rule.score(12.0, 3.0, 10.0, 5.0) == pytest.approx(0.4)


def test_unknown_criterion() -> None:
    with pytest.raises(UsageError, match="spectrum, mp"):
        find_criterion("iqr")


@pytest.mark.parametrize("beta", [1.0, 0.75, 0.3, 0.05, 0.001])
def test_median_of_the_law_against_its_density(beta: float) -> None:
    """Half of the mass lies below: integrate the textbook density itself with scipy."""
    integrate = pytest.importorskip("scipy.integrate")
    lower, upper = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2

    def density(y: float) -> float:  # of y = sqrt(x), which has no singularity at zero
        x = y * y
        return np.sqrt(max((upper - x) * (x - lower), 0.0)) / (np.pi * beta * max(y, 1e-300))

    mass, _ = integrate.quad(density, lower**0.5, median_eigenvalue(beta) ** 0.5, limit=400)
    assert mass == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("beta", [1.0, 0.999, 0.5, 0.25, 0.0101, 0.0099, 1e-3, 1e-5])
def test_median_is_exact_to_rounding(beta: float) -> None:
    """Both sides of the switch from closed form to series: half of the mass lies above, by Gauss's rule."""
    r = beta**0.5
    theta = np.arccos((median_eigenvalue(beta) - 1 - beta) / (2 * r))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    at = 0.5 * theta * (nodes + 1)
    above = 0.5 * theta * (weights * 2 / np.pi * np.sin(at) ** 2 / (1 + beta + 2 * r * np.cos(at))).sum()
    assert above == pytest.approx(0.5, abs=1e-15 + 1e-15 / r)


def test_median_for_square_matrices_solves_its_closed_form() -> None:
    """``x = 2 + 2 cos t`` with ``t - sin t = pi / 2``."""
    assert median_eigenvalue(1.0) == pytest.approx(0.652776, abs=1e-6)


def test_edge_is_where_noise_ends() -> None:
    largest = np.linalg.norm(np.random.default_rng(0).standard_normal((400, 900)), 2)
    assert largest == pytest.approx(upper_edge(1.0, 400, 900), rel=0.02)


@pytest.mark.parametrize("shape", [(512, 512), (512, 2048), (256, 4096), (128, 300), (700, 64)])
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 50.0])
def test_on_pure_noise_less_than_one_percent_is_signal(shape: tuple[int, int], sigma: float) -> None:
    counts = []
    for seed in range(3):
        noise = sigma * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        counts.append(sf.spectrum(noise, criterion="mp").n_signal)
    assert sum(counts) / 3 < 0.01 * min(shape)


def share_above_the_edge(n_min: int, n_max: int, count: int) -> float:
    """Of the singular values of ``count`` noise matrices, by float64 SVD."""
    noise = np.random.default_rng([n_min, n_max]).standard_normal((count, n_min, n_max))
    values = np.linalg.svd(noise, compute_uv=False)
    edges = [upper_edge(noise_scale(float(np.median(row)), n_min, n_max), n_min, n_max) for row in values]
    return float(np.mean(values > np.array(edges)[:, None]))


@pytest.mark.parametrize("aspect", [1, 1.25, 2, 4, 16])
@pytest.mark.parametrize("n_min", [CALIBRATED_SIDE, 40, 64])
def test_the_stated_range_is_one_where_less_than_one_percent_is_signal(n_min: int, aspect: float) -> None:
    assert share_above_the_edge(n_min, int(n_min * aspect), 400) < 0.01


def test_below_the_stated_range_the_claim_fails() -> None:
    """The figures of the documents, to four standard errors."""
    assert share_above_the_edge(24, 24, 4000) == pytest.approx(0.0111, abs=0.0013)
    assert share_above_the_edge(8, 8, 4000) == pytest.approx(0.0336, abs=0.004)
    assert share_above_the_edge(3, 3, 4000) == pytest.approx(0.0822, abs=0.01)


def test_the_reference_rule_calls_noise_signal() -> None:
    """The documented flaw, with the documented figures (23.6 %, 64 %, 100 %), to the sampling error."""
    shares = []
    for shape in [(512, 512), (256, 512), (256, 1024)]:
        noise = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
        shares.append(sf.spectrum(noise).n_signal / min(shape))
    assert shares[0] == pytest.approx(0.236, abs=0.02)
    assert shares[1] == pytest.approx(0.64, abs=0.03)
    assert shares[2] == 1.0


def test_mp_score_does_not_depend_on_scale_and_the_reference_does() -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(200, 300, generator=generator, dtype=torch.float64)
    weight += 30 * torch.outer(torch.randn(200, generator=generator), torch.randn(300, generator=generator)) / 200
    mp, ten_mp = sf.spectrum(weight, criterion="mp"), sf.spectrum(10 * weight, criterion="mp")
    plain, ten_plain = sf.spectrum(weight), sf.spectrum(10 * weight)
    assert mp.n_signal == 1
    assert ten_mp.snr == pytest.approx(mp.snr, rel=1e-6)
    assert ten_plain.snr == pytest.approx(plain.snr / 10, rel=1e-6)


@pytest.mark.parametrize(("n_min", "n_max"), [(300, 300), (300, 400), (64, 4096)])
@pytest.mark.parametrize("sigma", [0.02, 1.0, 7.0])
def test_the_density_of_singular_values_is_that_of_noise(n_min: int, n_max: int, sigma: float) -> None:
    """Its mass is 1, half of it below the median of the law, and none outside the edges."""
    low, high = sigma * (n_max**0.5 - n_min**0.5), upper_edge(sigma, n_min, n_max)
    points = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, 20001))) / 2
    density = singular_value_density(points, sigma, n_min, n_max)
    cells = (density[1:] + density[:-1]) / 2 * np.diff(points)
    assert cells.sum() == pytest.approx(1.0, abs=1e-6)
    median = float(np.interp(0.5, np.cumsum(cells), points[1:]))
    assert noise_scale(median, n_min, n_max) == pytest.approx(sigma, rel=1e-4)
    outside = np.array([0.0, 0.9 * low, 1.1 * high, -0.5 * high] if low else [1.1 * high, -0.5 * high])
    assert not singular_value_density(outside, sigma, n_min, n_max).any()


def test_the_density_of_a_square_matrix_is_a_quarter_circle() -> None:
    """Of radius ``2 sigma sqrt(n)``, its centre included, where the general formula is 0 / 0."""
    sigma, n = 0.5, 16
    values = np.array([0.0, 1.0, 2.0, 3.9, 4.0, 5.0])
    expected = np.sqrt(np.maximum(16 - values**2, 0)) / (np.pi * sigma**2 * n)
    assert singular_value_density(values, sigma, n, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_noise_without_scale_has_no_density(sigma: float) -> None:
    assert singular_value_density(np.array([0.0, 1.0]), sigma, 4, 4).tolist() == [0.0, 0.0]
