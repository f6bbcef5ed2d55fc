"""Criteria that are one number of a spectrum, against float64 SVD, against other programs, and as a user adds one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.choose.selection.select import rescore
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.criteria import QuantityCriterion, find_criterion, quantities_of
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.scoring.stored_spectra import as_stored
from spectrum_fast.measure.spectra.engine import compute_spectrum
from spectrum_fast.measure.spectra.record import OrderStatistics, SingularValues, Spectrum

from support import bounds, families, tails

TRUTH = json.loads((Path(__file__).parent / "data" / "weightwatcher.json").read_text())
DEFICIENT = ("repeated_rows",)
"""Families whose values may all be rounding below the median: then nothing says whether any is noise."""
OF_FUNCTIONALS = ("spectral-norm", "stable-rank", "kappa", "mp-rank")


def quantity(name: str) -> QuantityCriterion:
    rule = find_criterion(name)
    assert isinstance(rule, QuantityCriterion)
    return rule


def true_values(weight: torch.Tensor) -> np.ndarray:
    return np.linalg.svd(weight.to(torch.float64).numpy(), compute_uv=False)


def with_values(found: Spectrum, values: np.ndarray, bounds: np.ndarray | float) -> Spectrum:
    return replace(found, singular_values=SingularValues(values, np.broadcast_to(bounds, values.shape)))


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_what_follows_from_functionals_is_within_its_bound(family: str) -> None:
    """Of any scan: float64 truth, by the definitions."""
    weight = families.draw(family, 0, 200, 260)
    found, s = sf.spectrum(weight), true_values(weight)
    s[s <= s[0] * max(weight.shape) * np.finfo(float).eps] = 0.0
    median = OrderStatistics(0.0, 0.0, float(np.median(s)), 0.0, 0.0)
    edge = find_criterion("mp").edge(median, min(weight.shape), max(weight.shape))
    expected = {
        "spectral-norm": s[0],
        "stable-rank": (s**2).sum() / s[0] ** 2,
        "kappa": s[0] / (s[-1] + 1e-8),
        "mp-rank": (s > edge).sum(),
    }
    for name in OF_FUNCTIONALS:
        value, bound = quantity(name).measure(found)
        assert bound is not None
        assert abs(value - expected[name]) <= bound + 1e-13 * abs(value), (name, value, expected[name], bound)


@pytest.mark.parametrize("name", ["effective-rank", "alpha", "energy"])
@pytest.mark.parametrize("error", [1e-12, 1e-6, 1e-3])
def test_what_needs_all_values_is_within_its_bound(name: str, error: float) -> None:
    """Values that are off by up to a stated error, at random and all one way."""
    rng = np.random.default_rng(0)
    for weight in list(tails.matrices())[:12]:
        s = true_values(torch.from_numpy(weight))
        found = sf.spectrum(torch.from_numpy(weight))
        expected, _ = quantity(name).measure(with_values(found, s, 0.0))
        for moved in (s + error * rng.uniform(-1, 1, s.shape), s + error, np.maximum(s - error, 0)):
            off = np.sort(np.abs(moved))[::-1]
            value, bound = quantity(name).measure(with_values(found, off, error))
            assert bound is not None
            assert abs(value - expected) <= bound
            assert error > 1e-12 or bound < 1e-7 * (value or 1.0)


def test_energy_is_the_share_of_the_values_above_the_edge() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(60, 90, generator=g, dtype=torch.float64)
    weight[:, 0] += 20
    found, s = sf.spectrum(weight), true_values(weight)
    assert found.mp_rank == 1
    value, bound = quantity("energy").measure(with_values(found, s, 0.0))
    assert value == pytest.approx(s[0] ** 2 / (s**2).sum(), abs=bound)
    assert bound < 1e-12


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    found = sf.spectrum(torch.eye(5))
    value, bound = quantity("effective-rank").measure(with_values(found, np.ones(5), 0.0))
    assert value == pytest.approx(5.0, abs=bound)
    value, _ = quantity("effective-rank").measure(with_values(found, np.array([3.0, 1.0, 0.0, 0.0, 0.0]), 0.0))
    assert value == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_alpha_and_stable_rank_are_those_of_weightwatcher() -> None:
    """Forty matrices, short and long tails; what made the file is in it."""
    for weight, alpha, stable_rank in zip(tails.matrices(), TRUTH["alpha"], TRUTH["stable_rank"], strict=True):
        s = true_values(torch.from_numpy(weight))
        found = with_values(sf.spectrum(torch.from_numpy(weight)), s, 1e-15 * s[0])
        value, bound = quantity("alpha").measure(found)
        assert value == pytest.approx(alpha, rel=1e-9)
        assert bound is not None
        assert abs(value - alpha) <= bound < 1e-6 * value
        value, _ = quantity("stable-rank").measure(found)
        assert value == pytest.approx(stable_rank, rel=1e-5)  # theirs is float32


def test_alpha_of_no_tail_is_an_error() -> None:
    found = with_values(sf.spectrum(torch.eye(30)), np.ones(30), 0.0)
    with pytest.raises(UsageError, match="matrix: expected two different eigenvalues"):
        quantity("alpha").measure(found)


def scan_of(*weights: torch.Tensor) -> Scan:
    found = [sf.spectrum(weight) for weight in weights]
    modules = [
        ModuleScore(name=f"layers.{i}.q", type="q", parameter=f"layers.{i}.q.weight", shape=one.shape, **one.summary())
        for i, one in enumerate(found)
    ]
    return Scan("m", "spectrum", tuple(modules))


def test_a_user_adds_a_criterion_in_three_lines() -> None:
    @sf.criterion("share-of-the-largest")
    def top_share(spectrum):
        return (spectrum.s_max / spectrum.frobenius_norm) ** 2

    g = torch.Generator().manual_seed(0)
    noise = [torch.randn(40, 50, generator=g) for _ in range(4)]
    noise[2] += 9 * torch.ones(40, 50)
    chosen = scan_of(*noise).select(25, criterion="share-of-the-largest")  # pyright: ignore[reportArgumentType]
    assert (chosen.criterion, [module.name for module in chosen.modules]) == ("share-of-the-largest", ["layers.2.q"])
    s = true_values(noise[2])
    assert chosen.modules[0].snr == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-6)
    with pytest.raises(UsageError, match="one of the package's own"):
        sf.criterion("alpha")(top_share)
    sf.criterion("share-of-the-largest")(lambda spectrum: spectrum.largest)
    with pytest.raises(UsageError, match=r"share-of-the-largest of layers\.0\.q: AttributeError: .*'largest'"):
        scan_of(noise[0]).select(criterion="share-of-the-largest")  # pyright: ignore[reportArgumentType]
    assert "share-of-the-largest" not in quantities_of(scan_of(noise[0]).modules[0])
    sf.criterion("share-of-the-largest")(lambda _: float("nan"))
    with pytest.raises(UsageError, match="finite number >= 0, found nan"):
        scan_of(noise[0]).select(criterion="share-of-the-largest")  # pyright: ignore[reportArgumentType]


def test_small_condition_numbers_rank_first_and_undecided_cuts_are_said() -> None:
    conditions = (50.0, 2.0, 8.0, 8.0)
    scan = scan_of(*(torch.diag(torch.linspace(1, 1 / one, 20)) for one in conditions))
    chosen = scan.select(50, criterion="kappa")
    assert [module.name for module in chosen.modules] == ["layers.1.q", "layers.2.q"]
    assert chosen.groups[0].undecided
    assert not scan.select(25, criterion="kappa").groups[0].undecided


def test_what_a_scan_lacks_is_said_with_what_would_store_it() -> None:
    scan = scan_of(torch.randn(20, 30), torch.randn(20, 30))
    with pytest.raises(UsageError, match=r"layers\.0\.q: expected all its singular values.*--spectra"):
        scan.select(criterion="alpha")
    old = replace(scan, modules=tuple(replace(module, frobenius_norm=None) for module in scan.modules))
    with pytest.raises(UsageError, match="frobenius_norm in the scan, found none; scan again"):
        old.select(criterion="stable-rank")
    with pytest.raises(UsageError, match=r"by criterion .mp.*scan with --criterion mp, or with --spectra"):
        scan.select(criterion="mp")


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
@pytest.mark.parametrize(("smallest", "largest"), [(3, 90), pytest.param(200, 400, marks=pytest.mark.slow)])
def test_both_rules_are_asked_of_one_scan_where_all_values_are_stored(family: str, smallest: int, largest: int) -> None:
    """What the other rule makes of the stored values is within its own stated bounds, or is said not to be known."""
    weight = families.draw(family, 1, smallest, largest)
    truth = bounds.Truth.of(weight)
    for scanned, asked in (bounds.CRITERIA, bounds.CRITERIA[::-1]):
        found = compute_spectrum(weight, find_criterion(scanned), all_values=True)
        if not 1e-30 < found.s_max < 1e30:  # what float32 does not store
            continue
        assert found.singular_values is not None
        one = ModuleScore(
            name="q", type="q", singular_values=as_stored(found.singular_values), shape=found.shape, **found.summary()
        )
        try:
            (again,) = rescore(Scan("m", scanned, (one,)), asked)
        except UsageError as unknown:
            assert f"not known; scan with --criterion {asked}" in str(unknown)  # noqa: PT017
            assert family in DEFICIENT
            continue
        rule, as_spectrum = find_criterion(asked), cast("Spectrum", again)
        assert bounds.judge(truth, rule, as_spectrum).ratio <= 1, again
        assert max(bounds.field_ratios(truth, rule, as_spectrum).values()) <= 1, again
