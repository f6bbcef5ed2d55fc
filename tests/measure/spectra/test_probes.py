"""Measured bounds on the rounding of Gram products, held to the rounding itself in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import spectrum_fast as sf
from bench.weights import make_tensor
from spectrum_fast.measure.ops.band import CARRIED, reduce_to_band
from spectrum_fast.measure.ops.dispatch import use_backend
from spectrum_fast.measure.ops.gram import gram
from spectrum_fast.measure.ops.product import multiply_band
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra import probes
from spectrum_fast.measure.spectra.engine import compute_spectrum
from spectrum_fast.measure.spectra.matrices import Dense
from spectrum_fast.measure.spectra.methods import band
from spectrum_fast.measure.spectra.probes import (
    FEW_READINGS,
    HALVED,
    IN_MEMORY,
    Plan,
    bound_concentrated,
    bound_frobenius,
    bound_gram_error64,
    estimate_frobenius,
    measure_gram_error,
    residual_products,
)
from spectrum_fast.measure.spectra.rounding import OUTLIER

from support import bounds, matrices


def near_copies(seed: int, rows: int = 256, columns: int = 16384) -> torch.Tensor:
    """Entries +-c in float32, a tenth of the rows copies of others but for eight entries."""
    rng = np.random.default_rng(seed)
    copies = rows // 10
    signs = np.sign(rng.standard_normal((rows - copies, columns)))
    copied = signs[:copies].copy()
    for row in copied:
        row[rng.choice(columns, 8, replace=False)] *= -1
    scale = np.float32(rng.uniform(0.01, 0.04))
    return torch.from_numpy((np.concatenate([signs, copied]) * scale).astype(np.float32))


UNIT = torch.ones(1, 1, dtype=torch.float64)
PLANS = [IN_MEMORY, HALVED, FEW_READINGS]
CASES = {
    "gaussian": matrices.gaussian(300, 420).to(torch.bfloat16),
    "tall": matrices.gaussian(900, 210).to(torch.bfloat16),
    "trained": matrices.trained_like(260, 400, outliers=(12.0, 5.0)).to(torch.bfloat16),
    "constant": torch.full((256, 700), 0.37),
    "signs": torch.sign(matrices.gaussian(256, 900)).to(torch.float32) * 0.0371,
    "near copies": near_copies(0, columns=4096),
    "one entry": torch.eye(256)[:, :1] @ torch.eye(256)[:1],
}


def scales_for(size: int, *, scaled: bool) -> torch.Tensor:
    """As for sixteen outliers at the top, of which the least is left out; or one unit for all."""
    sizes = torch.cat([torch.logspace(-6, 0, 16, dtype=torch.float64), torch.ones(size - 16, dtype=torch.float64)])
    sizes[0] = 0.0
    return sizes[None] if scaled else UNIT


def probe(grams: Tensor, weights: Tensor, plans: list[Plan], scales: Tensor = UNIT) -> tuple[Tensor, Tensor]:
    return measure_gram_error(grams, lambda places: Dense([weights[place] for place in places]).image, plans, scales)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_rounding_lies_within_what_probes_say(name: str, plan: Plan, scaled: bool) -> None:
    weight = CASES[name].to(torch.float32)
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
    grams = gram(weight[None])
    exact = wide.double() @ wide.double().T
    scales = scales_for(len(exact), scaled=scaled)
    error = (grams[0].double() - exact) * scales * scales.T
    found, _ = probe(grams, weight[None], [plan], scales)
    spectral = float(torch.linalg.matrix_norm(error, 2))
    rounding = 1e-13 * float(torch.linalg.matrix_norm(exact))  # of the probes themselves
    assert spectral <= float(found) + rounding
    assert float(found) <= (40 if plan == HALVED else 16) * spectral + rounding


WAYS = [("native", name) for name in CASES if name != "one entry"]
WAYS += [(backend, name) for backend in ("reference", "model") for name in ("tall", "near copies")]


@pytest.mark.parametrize(("backend", "name"), WAYS)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_whole_way_to_a_band_lies_within_what_carried_vectors_say(name: str, scaled: bool, backend: str) -> None:
    """``||W W^T - Q B Q^T||_F``: Q is had by carrying the unit vectors, eight with each of as many copies."""
    weight = CASES[name].to(torch.float32)
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
    size, exact = len(wide), wide.double() @ wide.double().T
    scales = scales_for(size, scaled=scaled)
    with use_backend(backend):
        gram_error, carried = probe(gram(weight[None]), weight[None], [IN_MEMORY], scales)
        bands = reduce_to_band(gram(weight[None]), 16, carried).double()
        units = torch.eye(-(-size // CARRIED) * CARRIED, size, dtype=torch.float64).unflatten(0, (-1, CARRIED))
        reduce_to_band(gram(weight[None]).repeat(len(units), 1, 1), 16, units)
        turned = units.flatten(0, 1)[:size]  # rows: Q^T e_i, so this is Q
    assert float((turned @ turned.T - torch.eye(size)).abs().max()) <= 1e-12
    reduced = multiply_band(bands, torch.eye(size, dtype=torch.float64)[None])[0]
    error = (turned.T @ exact @ turned - reduced) * scales * scales.T
    frobenius, spectral = (float(torch.linalg.matrix_norm(error, order)) for order in ("fro", 2))
    estimate, concentrated = estimate_frobenius(residual_products(bands, carried, scales))
    of_largest = OUTLIER * torch.finfo(torch.float32).eps * float(torch.linalg.matrix_norm(exact))
    if not concentrated:
        assert spectral <= float(gram_error + 3 * estimate / size**0.5) + of_largest
        assert frobenius <= float(bound_frobenius(estimate, gram_error + 3 * estimate / size**0.5))
    assert frobenius <= float(bound_concentrated(estimate))
    assert float(estimate) <= 2.5 * frobenius  # of four vectors, where nearly all lies in one direction


def test_an_error_in_one_direction_does_not_pass_for_one_that_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reduction of a kernel at fault: of the norm of thirty roundings, all of it at the largest value."""
    weight, rule = matrices.gaussian(300, 400), find_criterion("spectrum")
    truth = bounds.Truth.of(weight.float())
    largest = torch.linalg.eigh(weight @ weight.T).eigenvectors[:, -1]

    def reduce_badly(grams: torch.Tensor, *rest: Any) -> torch.Tensor:
        error = 30 * torch.finfo(torch.float32).eps * float(torch.linalg.matrix_norm(grams[0]))
        grams += (error * torch.outer(largest, largest)).float()
        return reduce_to_band(grams, *rest)

    monkeypatch.setattr(band, "reduce_to_band", reduce_badly)
    found = compute_spectrum(weight.float(), rule, method="band", precision="float32")
    assert found.method == "band-float32"
    assert (
        max(bounds.field_ratios(truth, rule, found).values()) <= 1
    )  # the largest value was 4 times as wrong as stated
    assert found.error_bound > 1e-4


@pytest.mark.parametrize("share", [1.0, 0.7, 0.1, 0.0])
def test_vectors_tell_how_an_error_is_spread(share: float) -> None:
    """A share of it in one direction, the rest as independent rounding has it."""
    size = 400
    spread, direction = matrices.gaussian(size, size), matrices.gaussian(size, 1, 7)
    spread, one = spread + spread.T, direction @ direction.T
    parts = zip(((1 - share) ** 0.5, share**0.5), (spread, one), strict=True)
    error = sum((weight * part / torch.linalg.matrix_norm(part) for weight, part in parts), torch.zeros(size, size))
    x = IN_MEMORY.start(size, torch.device("cpu"))[None]
    none = torch.zeros(1, size, 17, dtype=torch.float64)
    estimate, concentrated = estimate_frobenius(residual_products(none, torch.cat([x, x @ error], 1), UNIT))
    assert bool(concentrated) == (share > 0.5)
    assert 0.4 <= float(estimate) <= 2
    assert float(bound_concentrated(estimate)) >= 1


@pytest.mark.parametrize("plans", [[IN_MEMORY] * 3, [HALVED, IN_MEMORY, HALVED]], ids=["one plan", "two plans"])
def test_a_batch_gives_what_each_gives_alone(plans: list[Plan]) -> None:
    stacked = torch.stack([matrices.gaussian(1030, 1100, seed) for seed in range(3)]).to(torch.bfloat16)
    together, carried = probe(gram(stacked), stacked, plans, UNIT.expand(3, 1))
    for index, plan in enumerate(plans):
        weight = stacked[index : index + 1]
        alone, own = probe(gram(weight), weight, [plan])
        assert float(alone) == float(together[index, 0])
        assert torch.equal(own[0], carried[index])


def test_every_size_has_a_plan() -> None:
    assert Dense(torch.zeros(1, 1030, 1100)).plan() in PLANS


@pytest.mark.parametrize("kind", ["v_proj", "up_proj", "gate_proj"])
def test_a_spectrum_like_that_of_noise_is_probed_with_care(kind: str) -> None:
    for layer in range(3):  # none, one and two values below the bulk
        weight = make_tensor(f"model.layers.{layer}.self_attn.{kind}.weight", (384, 1536))
        squares = torch.linalg.svdvals(weight.double()) ** 2
        spikiness = float(384 * (squares * squares).sum() / squares.sum() ** 2)
        expected = IN_MEMORY if kind == "v_proj" else HALVED
        assert Dense(weight[None]).plan(spikiness) == expected
        assert Dense(weight[None, :, :384]).plan(spikiness) == IN_MEMORY


def test_quantiles_are_those_of_chi_squared() -> None:
    assert {plan.vectors for plan in PLANS} == set(probes.QUANTILES)
    for vectors, theta in probes.QUANTILES.items():
        assert theta == pytest.approx(chi2.ppf(probes.MISSES, vectors), rel=1e-4)


def test_bounds_miss_as_rarely_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a probability that a test can see, over rank-one errors, where the bound is tight."""
    monkeypatch.setattr(probes, "MISSES", 0.05)
    monkeypatch.setattr(probes, "QUANTILES", {vectors: chi2.ppf(0.05, vectors) for vectors in probes.QUANTILES})
    weight = torch.zeros(1, 64, 64)
    missed = 0
    for seed in range(400):
        monkeypatch.setattr(probes, "_SEED", seed)
        direction = matrices.gaussian(64, 1, seed + 1000)
        error = direction @ direction.T
        found, _ = probe(error[None], weight, [Plan(32, 2)])
        missed += float(found) < float(direction.square().sum())
    assert 8 <= missed <= 36  # 20 expected, four standard deviations


def test_float64_has_a_worst_case() -> None:
    weight = torch.full((40, 70000), 1 / 3, dtype=torch.float64)
    exact = 70000 * np.longdouble(1 / 3) ** 2
    computed = gram(weight[None], out_dtype=torch.float64)[0]
    bound = bound_gram_error64(weight.square().sum()[None], 70000)
    assert 40 * np.abs(computed.numpy().astype(np.longdouble) - exact).max() <= float(bound)


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_of_equal_magnitude_are_scored_within_their_bound(seed: int) -> None:
    """Rounding has one sign there: by a model of independent rounding the stated bound was 4 to 10 times too small."""
    weight = near_copies(seed)
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    q25, q75 = np.quantile(values, [0.25, 0.75])
    threshold = (q75 - q25) / 1.349 * (1 + math.sqrt(256 / 16384))
    truth = values[values > threshold].sum() / values[values <= threshold].sum() / values[0]
    found = sf.spectrum(weight)
    assert found.snr is not None
    assert abs(found.snr / truth - 1) <= found.error_bound <= 1e-4
