"""Order statistics and sums from counts, against spectra that are simply listed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrum_fast.measure.spectra.counting import (
    CountTable,
    bracket_order_statistics,
    integrate_counts,
    integration_error,
)

rng = np.random.default_rng(0)
SPECTRA = {
    "gaussian": np.linalg.svd(rng.standard_normal((200, 300)), compute_uv=False) / 30,
    "equispaced": np.arange(1, 401) / 400,
    "clusters": np.repeat([0.1, 0.2, 0.5, 3.0], 50) + 1e-9 * rng.standard_normal(200),
    "all equal": np.full(64, 0.7),
    "outliers": np.r_[rng.random(300), 1000.0, 300.0],
    "one far outlier": np.r_[rng.random(2000) ** 4, 1e5],
    "two tiny": np.r_[1e-6, 1e-4, rng.random(300)],
    "single": np.array([2.5]),
}


def count_table(values: np.ndarray) -> CountTable:
    table = CountTable(lambda t: (values[None, :] < t[:, None]).sum(axis=1), len(values))
    table.add(np.linspace(0.0, 1.1 * values.max(), 20))
    return table


def log_det(values: np.ndarray):
    return lambda z: np.log(values[None, :] ** 2 - z[:, None]).sum(axis=1)


def exact_integral(values: np.ndarray, a: float, b: float) -> float:
    return float(np.clip(b - np.maximum(values, a), 0, None).sum())


@pytest.mark.parametrize("name", SPECTRA)
def test_brackets_hold_the_order_statistics(name: str) -> None:
    values = np.sort(SPECTRA[name])
    ranks = sorted({0, len(values) // 4, len(values) // 2, len(values) - 1})
    brackets = bracket_order_statistics(count_table(values), ranks, lambda t: 1e-10 * t)
    for rank in ranks:
        lo, hi = brackets[rank]
        assert lo <= values[rank] < hi
        assert hi - lo <= 1e-10 * hi


def test_brackets_come_back_even_where_the_width_cannot_be_reached() -> None:
    values = np.array([1.0, 2.0, 3.0])
    brackets = bracket_order_statistics(count_table(values), [1], lambda _: 0.0)
    lo, hi = brackets[1]
    assert lo <= 2.0 <= hi
    assert hi - lo < 1e-14


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("name", SPECTRA)
def test_integral_meets_its_stated_error(name: str, tolerance: float) -> None:
    values = np.sort(SPECTRA[name])
    ends = [0.9 * values[0], float(np.quantile(values, 0.4)) * 1.001, 1.001 * values[-1]]
    for a, b in [(ends[0], ends[1]), (ends[1], ends[2]), (ends[0], ends[2])]:
        interval = count_table(values).interval(a, b)
        found = integrate_counts(log_det(values), interval, tolerance)
        allowed = integration_error(interval, tolerance) + 1e-13 * len(values) * b
        assert abs(found - exact_integral(values, a, b)) <= allowed


def test_integral_from_zero_and_over_nothing() -> None:
    values = np.sort(SPECTRA["gaussian"])
    table = count_table(values)
    found = integrate_counts(log_det(values), table.interval(0.0, 0.5), 1e-8)
    assert found == pytest.approx(exact_integral(values, 0.0, 0.5), abs=1e-4)
    assert integrate_counts(log_det(values), table.interval(0.5, 0.5), 1e-8) == 0.0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=40),
    ends=st.tuples(st.floats(0.02, 10.0), st.floats(0.02, 10.0)),
)
def test_integral_of_any_spectrum(values: list[float], ends: tuple[float, float]) -> None:
    spectrum = np.sort(np.array(values))
    a, b = min(ends), max(ends)
    interval = count_table(spectrum).interval(a, b)
    found = integrate_counts(log_det(spectrum), interval, 1e-6)
    assert abs(found - exact_integral(spectrum, a, b)) <= integration_error(interval, 1e-6) + 1e-10
