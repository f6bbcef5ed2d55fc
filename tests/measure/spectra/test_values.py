"""All singular values against float64 SVD: each within its bound, whatever the method and however hostile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import TensorError
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectrum
from spectrum_fast.measure.spectra.methods import band
from spectrum_fast.measure.spectra.record import SingularValues

from support import families
from support.bounds import in_blocks

WAYS = [("auto", "auto"), ("band", "float32"), ("band", "float64"), ("svd", "float64")]


def furthest(found: SingularValues, weight: torch.Tensor) -> float:
    """Error in units of the bound, the worst of all; what float64 cannot tell from zero counts as zero."""
    true = np.linalg.svd(weight.to(torch.float64).numpy(), compute_uv=False)
    floor = true[0] * max(weight.shape) * np.finfo(float).eps
    errors = np.maximum(np.abs(found.values - true) - floor, 0.0)
    assert found.values.shape == found.bounds.shape == true.shape
    assert bool((np.diff(found.values) <= 0).all())
    return float(np.max(np.divide(errors, found.bounds, out=np.zeros_like(errors), where=errors > 0)))


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_every_value_is_within_its_bound(family: str) -> None:
    weight = families.draw(family, 1, 200, 300)
    for method, precision in WAYS:
        found = compute_spectrum(
            weight, find_criterion("spectrum"), method=method, precision=precision, all_values=True
        )
        assert found.singular_values is not None
        assert furthest(found.singular_values, weight) <= 1, (method, precision, found.method)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_every_value_of_many_matrices_is_within_its_bound(family: str) -> None:
    for seed in range(2, 12):
        weight = families.draw(family, seed, 1, 500)
        for method, precision in WAYS:
            found = sf.singular_values(weight, method=method, precision=precision)  # pyright: ignore[reportArgumentType]
            assert isinstance(found, SingularValues)
            assert furthest(found, weight) <= 1, (seed, method, precision)


@pytest.mark.parametrize("most", [0.0, 1e9], ids=["of the weights", "of the Gram matrix"])
def test_a_value_between_bulk_and_outliers_has_the_error_of_its_own_row(
    monkeypatch: pytest.MonkeyPatch, most: float
) -> None:
    """It was rotated into a row of its own, whose rounding does not count for the others: 1.0016 of what was stated."""
    monkeypatch.setattr(band, "SPIKY", 1.0)
    monkeypatch.setattr(band, "WIDE_IN_GRAM", most)
    monkeypatch.setattr(band, "SQUARE_IN_GRAM", most)
    weight = families.draw("spiked", 5073, 1, 400)
    found = compute_spectrum(weight, find_criterion("spectrum"), method="band", precision="float32", all_values=True)
    assert found.method == "band-float32-rotated"
    assert found.singular_values is not None
    errors = np.abs(found.singular_values.values - np.linalg.svd(weight.double().numpy(), compute_uv=False))
    assert (errors <= found.singular_values.bounds).all()


def test_bounds_are_of_use() -> None:
    """Of a Gaussian matrix: to 1e-6 of the root mean square from float32, to 1e-9 from float64."""
    weight = torch.randn(400, 600, generator=torch.Generator().manual_seed(0))
    size = float(weight.norm()) / 20
    for precision, share in (("auto", 2e-5), ("float64", 1e-8)):
        found = sf.singular_values(weight, precision=precision)  # pyright: ignore[reportArgumentType]
        assert isinstance(found, SingularValues)
        assert found.bounds.max() < share * size


def test_lists_batches_blocks_and_arrays() -> None:
    g = torch.Generator().manual_seed(0)
    mixed = [torch.randn(220, 300, generator=g), torch.randn(4, 7, generator=g), torch.zeros(3, 2)]
    found = sf.singular_values(mixed)
    assert [one.values.shape for one in found] == [(220,), (4,), (2,)]
    assert all(furthest(one, weight) <= 1 for one, weight in zip(found, mixed, strict=True))
    batch = sf.singular_values(torch.stack([mixed[0], 2 * mixed[0]]))
    assert isinstance(batch, list)
    assert np.allclose(batch[1].values, 2 * batch[0].values, rtol=1e-5)
    alone = sf.singular_values(mixed[0].numpy())
    assert isinstance(alone, SingularValues)
    assert np.array_equal(alone.values, found[0].values)
    blocks = compute_spectrum(in_blocks(mixed[0], 3), find_criterion("spectrum"), all_values=True)
    assert blocks.singular_values is not None
    assert furthest(blocks.singular_values, mixed[0]) <= 1
    assert sf.spectrum(mixed[0]).singular_values is None
    with pytest.raises(TensorError, match="NaN"):
        sf.singular_values(torch.full((2, 2), torch.nan))


@pytest.mark.parametrize("power", [-140, 120])
def test_ends_of_float32(power: int) -> None:
    weight = torch.randn(220, 230, generator=torch.Generator().manual_seed(1)) * 2.0**power
    found = sf.singular_values(weight)
    assert isinstance(found, SingularValues)
    assert furthest(found, weight) <= 1
