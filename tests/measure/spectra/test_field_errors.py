"""Every number behind a score is within its own stated error of float64 SVD, by every engine that serves."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch

from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectrum

from support import bounds, families
from support.marks import slow

pytestmark = pytest.mark.usefixtures("one_thread")


def check(weight: torch.Tensor, number: int) -> None:
    truth = bounds.Truth.of(weight)
    for place, engine in enumerate(bounds.ENGINES):
        if bounds.serves(engine, weight):
            rule = find_criterion(bounds.CRITERIA[(number + place) % 2])
            found = bounds.ENGINES[engine](weight, rule)
            ratios = bounds.field_ratios(truth, rule, found)
            assert max(ratios.values()) <= 1, (engine, rule.name, found.method, ratios)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_stated_errors_hold(name: str) -> None:
    for seed in range(10):
        check(families.draw(name, seed, 1, 600), seed)
    check(families.draw(name, 1, 193, 320), 1)


@pytest.mark.parametrize("name", slow(*families.FAMILIES))
def test_stated_errors_of_many_matrices_hold(name: str) -> None:
    for seed in range(10, 60):
        check(families.draw(name, seed, 1, 600), seed)
    for seed in range(2, 10):
        check(families.draw(name, seed, 193, 420), seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(384, 384), (256, 512)])
def test_quartiles_of_a_product_of_low_rank(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Half of the values are rounding: a quartile may be off by all of itself while the score is exact, and says so."""
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(*sides, generator=generator) for sides in ((shape[0], 192), (192, shape[1]))]
    weight = (factors[0] @ factors[1]).to(dtype)
    truth = bounds.Truth.of(weight)
    for name in bounds.CRITERIA:
        rule = find_criterion(name)
        for method in ("auto", "band"):
            found = compute_spectrum(weight, rule, method=method)
            assert bounds.judge(truth, rule, found).ratio <= 1
            assert max(bounds.field_ratios(truth, rule, found).values()) <= 1


def test_values_that_rounding_hides_may_be_zero() -> None:
    """Rows are copies, most values zero, and float32 finds small ones in their place."""
    check(families.draw("repeated_rows", 8, 1, 600), 7)
    check(families.draw("repeated_rows", 3, 1, 600), 0)


def test_errors_are_those_of_the_scale() -> None:
    weight = torch.randn(220, 260, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule = find_criterion("mp")
    plain, scaled = (compute_spectrum(weight * 2.0**power, rule) for power in (0, -900))
    for a, b in zip(astuple(plain.errors), astuple(scaled.errors), strict=True):
        assert b == pytest.approx(a * (1 if isinstance(a, int) else 2.0**-900), rel=0.03)
    assert max(bounds.field_ratios(bounds.Truth.of(weight), rule, plain).values()) <= 1
    least = compute_spectrum(weight * 2.0**-1072, rule)
    assert all(bound > 0 for bound in astuple(least.errors) if isinstance(bound, float))


def test_an_error_beyond_its_bound_is_seen() -> None:
    weight, rule = families.draw("gaussian", 3, 40, 60), find_criterion("spectrum")
    found = compute_spectrum(weight, rule)
    other = bounds.field_ratios(bounds.Truth.of(weight.to(torch.float64) * (1 + 1e-9)), rule, found)
    assert min(ratio for key, ratio in other.items() if key not in ("n_undecided", "mp_rank")) > 1
