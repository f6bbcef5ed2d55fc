"""Single values refined beyond float32, held to float64; and what is in doubt at a threshold decided by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import spectrum_fast as sf
from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.functionals import Functionals, read_functionals
from spectrum_fast.measure.spectra.methods import band
from spectrum_fast.measure.spectra.refinement import Refinement

from support import bounds, families, matrices

OUTLIERS = (40.0, 12.0, 5.0)
WEIGHTS = {
    "gaussian": matrices.gaussian(300, 420),
    "square": matrices.gaussian(500, 500),
    "trained": matrices.trained_like(400, 350),
    "outliers": matrices.trained_like(320, 400, outliers=OUTLIERS),
    "far outliers": matrices.trained_like(300, 300, outliers=(300.0, 30.0)),
    "every value twice": torch.block_diag(matrices.gaussian(150, 200), matrices.gaussian(150, 200)),
}
FLOAT32: dict[str, Any] = {"method": "band", "precision": "float32"}


def refined_of(weight: Tensor, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The band of a matrix as it is sliced again, with all that it is refined by."""
    plain, kept = band.slice_bands, []
    with monkeypatch.context() as patched:
        patched.setattr(band, "read_functionals", as_if_in_doubt)
        patched.setattr(band, "slice_bands", lambda found, *rest: kept.append(found) or plain(found, *rest))
        sf.spectrum(weight, **FLOAT32)
    return kept[-1]


def as_if_in_doubt(columns: Tensor, size: int) -> list[Functionals]:
    return [replace(one, n_undecided=max(one.n_undecided, 1)) for one in read_functionals(columns, size)]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_values_lie_within_their_errors(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = WEIGHTS[name].to(torch.bfloat16)
    exact = torch.linalg.svdvals(weight.double()).flip(0).numpy()
    with use_backend(backend):
        found = refined_of(weight, monkeypatch)
    size, unit = len(exact), found.rounding.uncertainty(exact[None])[0]
    ranks = [1, size // 4, size // 2, size // 2 + 1, 3 * size // 4, 7 * size // 8]
    near = exact[ranks]
    values, errors = found.refinement.refine(
        ranks, (near - unit[ranks]).clip(0.0)[None], (near + unit[ranks])[None], found.slices, found.rounding
    )
    values, errors = values[0], errors[0]
    known = np.isfinite(errors)
    rounding = 1e-13 * float(exact[-1])  # of the truth itself
    assert (abs(values - near) <= errors + rounding)[known].all()
    if name == "every value twice":
        assert not known.any(), "none is alone"
    else:
        assert int(known.sum()) >= 4
        assert (errors[known] <= 0.2 * unit[ranks][known]).all()


def not_at_all(_self: Refinement, _ranks: list[int], lo: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
    return lo, np.full_like(lo, np.inf)


@pytest.mark.parametrize("is_above", [False, True])
def test_what_float32_leaves_in_doubt_is_decided(is_above: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrices.gaussian(500, 560)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    place = int((s - sf.spectrum(weight, method="svd").threshold).abs().argmin())
    for _ in range(3):  # rounding to float32 moves all of them a little
        threshold = sf.spectrum(((u * s) @ vt).to(torch.float32), method="svd").threshold
        s[place] = threshold * (1 + (2e-7 if is_above else -2e-7))
    weight = ((u * s) @ vt).to(torch.float32)
    with monkeypatch.context() as patched:
        patched.setattr(Refinement, "refine", not_at_all)
        before = sf.spectrum(weight, **FLOAT32)
    found, exact = sf.spectrum(weight, **FLOAT32), sf.spectrum(weight, method="svd")
    assert before.errors.n_undecided == 1
    assert before.error_bound > 1e-3
    assert found.errors.n_undecided == 0
    assert (found.n_signal, found.n_noise) == (exact.n_signal, exact.n_noise)
    assert found.error_bound <= 1e-4
    assert found.errors.q25 <= 0.01 * before.errors.q25
    assert found.errors.q75 <= 0.01 * before.errors.q75
    assert found.errors.q50 == before.errors.q50, "the threshold does not depend on it"
    truth, rule = bounds.Truth.of(weight), find_criterion("spectrum")
    assert max(bounds.field_ratios(truth, rule, found).values()) <= 1
    assert sf.spectrum(weight, method="band").method == "band-float32", "float64 is not asked any more"


def test_a_value_at_the_threshold_itself_stays_undecided() -> None:
    """Half of the values are one and the threshold is the median: nothing tells them apart."""
    values = torch.cat([torch.linspace(0.5, 0.999, 100), torch.ones(101), torch.linspace(1.001, 3.0, 99)]).double()
    left, right = (torch.linalg.qr(matrices.gaussian(n, 300, seed=n)).Q for n in (300, 400))
    weight = ((left * values) @ right.mT).to(torch.float32)
    truth = bounds.Truth.of(weight)
    for name in ("spectrum", "mp"):
        rule = find_criterion(name)
        found = sf.spectrum(weight, criterion=name, **FLOAT32)
        assert max(bounds.field_ratios(truth, rule, found).values()) <= 1


@pytest.mark.parametrize("family", families.FAMILIES)
def test_fields_hold_where_every_matrix_is_refined(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were undecided values."""
    monkeypatch.setattr(band, "read_functionals", as_if_in_doubt)
    weight = families.draw(family, 3, smallest=150, largest=320)
    truth, rule = bounds.Truth.of(weight), find_criterion("spectrum")
    found = sf.spectrum(weight, **FLOAT32)
    assert max(bounds.field_ratios(truth, rule, found).values()) <= 1
