"""Outliers foreseen from a sample: right about how spiky a matrix is, and nothing but time depends on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.methods import band
from spectrum_fast.measure.spectra.methods.band import SPIKY
from spectrum_fast.measure.spectra.sampling import foresee_outliers

from support import matrices, truth

CRITERION = find_criterion("spectrum")
SPIKED = {
    "one outlier": matrices.trained_like(320, 700, outliers=(60.0,)),
    "tall": matrices.trained_like(900, 300, outliers=(30.0, 50.0)),
    "many outliers": matrices.trained_like(400, 400, outliers=tuple(2.0**k for k in range(12))),
    "power law": matrices.with_singular_values(torch.arange(1, 301).double().pow(-1.0).numpy(), 300, 500),
}


def exact_spikiness(weight: Tensor) -> float:
    fourth = torch.linalg.svdvals(weight.double()).pow(4).sum()
    return float(min(weight.shape) * fourth / weight.double().square().sum() ** 2)


def foresee(weight: Tensor, spikiness: float) -> Tensor | None:
    return foresee_outliers(weight, float(weight.double().square().sum()), spikiness)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SPIKED)
def test_the_estimate_is_near_the_truth(name: str, dtype: torch.dtype) -> None:
    weight = SPIKED[name].to(dtype)
    exact = exact_spikiness(weight)
    assert exact > 2 * SPIKY
    assert foresee(weight, 2 * exact) is None
    directions = foresee(weight, exact / 2)
    assert directions is not None
    assert directions.shape == (min(weight.shape), 32)
    vectors = torch.linalg.svd(weight.double())
    leading = vectors.U[:, 0] if weight.shape[0] <= weight.shape[1] else vectors.Vh[0]
    assert (torch.linalg.qr(directions).Q.T @ leading).norm() >= 0.95


@pytest.mark.parametrize("shape", [(300, 300), (300, 1200), (1200, 300)])
def test_noise_is_not_foreseen_to_have_outliers(shape: tuple[int, int]) -> None:
    weight = matrices.gaussian(*shape)
    assert foresee(weight, 1.25 * exact_spikiness(weight)) is None


def test_one_long_column_does_not_pass_for_thousands() -> None:
    """Each in turn, so that one of them is chosen; it makes the matrix less spiky than what is looked for."""
    weight = matrices.gaussian(250, 400).float()
    for column in range(0, 400, 5):
        long = weight.clone()
        long[:, column] *= 3
        assert exact_spikiness(long) < SPIKY / 2
        assert foresee(long, SPIKY) is None


def test_neighbours_that_are_alike_do_not_pass_for_thousands() -> None:
    weight = matrices.gaussian(250, 100).repeat_interleave(8, 1).float()
    assert foresee(weight, 1.25 * exact_spikiness(weight)) is None


def squared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Gram products that a spectrum takes from here on."""
    taken: list[str] = []

    def taking(name: str) -> Any:
        form = getattr(band, name)

        def take(*given: Any, unrounded: bool = False) -> Any:
            taken.append("unrounded" if unrounded else name)
            return form(*given, unrounded=True) if unrounded else form(*given)

        return take

    for name in ("square", "square_rotated"):
        monkeypatch.setattr(band, name, taking(name))
    return taken


@pytest.mark.parametrize("name", SPIKED)
def test_what_is_foreseen_is_squared_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = squared(monkeypatch)
    monkeypatch.setattr(band, "SAMPLED_ENTRIES", 0)
    weight = SPIKED[name].float()
    before = weight.clone()
    found = compute_spectrum(weight, CRITERION, precision="float32")
    assert taken in (["unrounded"], ["unrounded", "square_rotated"])
    assert torch.equal(weight, before)
    truth.assert_matches(weight, found, tolerance=1e-3)  # float32 and nothing else


def test_what_is_foreseen_leaves_its_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = squared(monkeypatch)
    monkeypatch.setattr(band, "SAMPLED_ENTRIES", 0)
    spiked = next(iter(SPIKED.values())).float()
    calm = matrices.gaussian(*spiked.shape).float()
    batch = [calm, spiked, 2 * calm]
    found = compute_spectra(torch.stack(batch), CRITERION, precision="float32")
    assert taken[:2] == ["unrounded", "square"]
    assert found == [compute_spectrum(weight, CRITERION, precision="float32") for weight in batch]


def test_outliers_in_a_few_columns_are_missed_and_cost_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrices.gaussian(400, 900).float()
    weight[:, 234:236] *= 20
    assert exact_spikiness(weight) > SPIKY
    assert foresee(weight, SPIKY) is None
    taken = squared(monkeypatch)
    found = compute_spectrum(weight, CRITERION, precision="float32")
    assert taken == ["square", "unrounded"]
    assert found.method == "band-float32-rotated"
    truth.assert_matches(weight, found)


def test_a_few_rows_have_nothing_to_be_sampled() -> None:
    assert foresee(torch.ones(40, 50), 0.0) is None
