"""The stated error bound holds: random matrices of hostile families against float64 SVD.

``pytest -m slow`` draws some five thousand matrices, the plain run a few hundred.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import spectrum_fast as sf

import families
import truth

METHODS = [("auto", "auto"), ("band", "float32"), ("band", "float64")]


def check_bound(name: str, seed: int, smallest: int, largest: int) -> None:
    """One matrix, every method: the truth lies within the stated bound, and auto meets its tolerance."""
    weight = families.draw(name, seed, smallest, largest)
    exact = truth.exact(weight)
    # The customary numerical rank: what lies below is rounding of the SVD that serves as truth.
    floor = exact.values[-1] * max(weight.shape) * np.finfo(float).eps
    values = np.where(exact.values <= floor, 0.0, exact.values)
    noise = values <= exact.threshold
    noise_sum, signal_sum = values[noise].sum(), values[~noise].sum()
    for method, precision in METHODS:
        found = sf.spectrum(weight, method=method, precision=precision)
        case = f"{name}, seed {seed}, {tuple(weight.shape)}, {weight.dtype}, {found.method}: {found.reason}"
        if found.s_max == 0.0:
            assert exact.values[-1] == 0.0, case
        elif found.noise_free:
            assert noise_sum <= floor * len(values), case
        elif math.isfinite(found.error_bound):
            assert noise_sum > 0, case
            expected = signal_sum / noise_sum / values[-1]
            error = abs(found.snr / expected - 1) if expected > 0 else found.snr
            assert error <= found.error_bound, f"{case}: error {error:.2e}, stated {found.error_bound:.2e}"
        if method == "auto":
            assert found.error_bound <= 1e-4, case


@pytest.mark.parametrize("name", families.FAMILIES)
def test_small_matrices(name: str) -> None:
    for seed in range(20):
        check_bound(name, seed, 1, 150)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_matrices_that_the_band_method_serves(name: str) -> None:
    for seed in range(4):
        check_bound(name, seed, 200, 420)


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_many_small_matrices(name: str) -> None:
    for seed in range(100, 480):
        check_bound(name, seed, 1, 600)


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_many_matrices_that_the_band_method_serves(name: str) -> None:
    for seed in range(100, 140):
        check_bound(name, seed, 200, 800)
