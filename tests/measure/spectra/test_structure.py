"""Matrices that chance does not draw and checkpoints hold: zero outside their outliers, at the ends of float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrum_fast.errors import TensorError
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra, compute_spectrum
from spectrum_fast.measure.spectra.record import Spectrum
from tests.measure.spectra import search

from support.bounds import Truth, in_blocks, judge


def zero_outside(kind: str, rows: int, columns: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    weight = torch.zeros_like(noise)
    if kind == "one entry":
        weight[3, 5] = 1.0
    elif kind == "rows":
        weight[40 : 40 + rank] = noise[:rank]
    elif kind == "columns":
        weight[:, :rank] = noise[:, :rank]
    elif kind == "block":
        weight[:rank, 7 : 7 + rank] = noise[:rank, :rank]
    elif kind == "rank one":
        weight[:rank] = noise[:rank, :1].sign() * noise[:1].sign()
    elif kind == "small beside":
        weight = noise * 2.0**-20
        weight[:rank] = noise[:rank]
    return weight


@pytest.mark.parametrize(
    ("rank", "dtype"),
    [(1, torch.bfloat16), (5, torch.bfloat16), (40, torch.float16), (5, torch.float32), (5, torch.float64)],
)
@pytest.mark.parametrize("kind", ["one entry", "rows", "columns", "block", "rank one", "small beside"])
def test_zero_outside_the_outliers(kind: str, rank: int, dtype: torch.dtype) -> None:
    weight = zero_outside(kind, 200, 240, rank).to(dtype)
    weight = weight.T.contiguous() if rank == 5 else weight
    for rule in map(find_criterion, ("spectrum", "mp")):
        truth = Truth.of(weight)
        with use_backend(MODEL):
            fixed = compute_spectra([weight], rule)[0]
        ways: dict[str, Spectrum | Exception] = {
            "band": compute_spectrum(weight, rule, method="band"),
            "blocks": compute_spectrum(in_blocks(weight, 3), rule),
            "batch": compute_spectra([weight, weight.flip(0)], rule)[0],
            "fixed": fixed,
        }
        for way, found in ways.items():
            assert isinstance(found, Spectrum), way
            assert judge(truth, rule, found).ratio <= 1, (way, found)
            assert math.isfinite(found.error_bound) or way == "band", (way, found)


def test_one_entry_is_noise_free() -> None:
    weight = torch.zeros(256, 256, dtype=torch.bfloat16)
    weight[0, 0] = 1.0
    found = compute_spectrum(weight, find_criterion("spectrum"))
    assert (found.noise_free, found.snr, found.s_max, found.n_signal, found.n_noise) == (True, None, 1.0, 1, 255)


@pytest.mark.parametrize("exponent", [-1010, 1005])
@pytest.mark.parametrize("shape", [(40, 60), (220, 260)])
def test_ends_of_float64(shape: tuple[int, int], exponent: int) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in ("spectrum", "mp"):
        rule = find_criterion(name)
        plain, found = compute_spectrum(weight, rule), compute_spectrum(weight * 2.0**exponent, rule)
        assert plain.snr is not None
        assert found.snr is not None
        degree = -exponent if name == "spectrum" else 0
        assert found.snr == pytest.approx(math.ldexp(plain.snr, degree), rel=plain.error_bound + found.error_bound)
        assert found.s_max == pytest.approx(math.ldexp(plain.s_max, exponent), rel=1e-9)


@pytest.mark.parametrize("size", [2, 220])
def test_what_float64_cannot_hold_is_refused_by_name(size: int) -> None:
    rule = find_criterion("spectrum")
    for entry in (1.7e308, 2.0**1023):
        with pytest.raises(TensorError, match="overflows"):
            compute_spectrum(torch.full((size, size), entry, dtype=torch.float64), rule)
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(TensorError, match="score"):
        compute_spectrum(noise * 2.0**-1040, rule)


@pytest.mark.parametrize("size", [60, 220])
@pytest.mark.parametrize("power", [-308, -309, -310, -315])
def test_a_score_is_a_number_or_refused(power: int, size: int) -> None:
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = compute_spectrum(noise * 10.0**power, find_criterion("mp"))
    assert found.snr is not None
    assert math.isfinite(found.snr)
    if power == -308:
        assert 1e306 < (compute_spectrum(noise * 1e-308, find_criterion("spectrum")).snr or 0) < math.inf
        return
    with pytest.raises(TensorError, match="overflows"):
        compute_spectrum(noise * 10.0**power, find_criterion("spectrum"))


@pytest.mark.parametrize(("rows", "columns"), [(90, 31), (32, 40)])
def test_as_many_outliers_as_rows(rows: int, columns: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) + 3.0
    weight[0] *= 1e3
    rule = find_criterion("mp")
    found = compute_spectrum(weight, rule, method="band", precision="float32")
    assert found.method == "band-float32-rotated"
    assert judge(Truth.of(weight), rule, found).ratio <= 1


def test_outliers_beside_the_least_numbers() -> None:
    weight = torch.from_numpy(np.random.default_rng(1).standard_normal((220, 330)))
    weight[:5] *= 1e10
    weight[5:] *= np.finfo(float).tiny
    rule = find_criterion("spectrum")
    assert judge(Truth.of(weight), rule, compute_spectrum(weight, rule)).ratio <= 1


@pytest.mark.parametrize("record", search.read_records(), ids=lambda record: record["engine"])
def test_the_records_of_the_search_lie_within_their_bounds(record: dict[str, Any]) -> None:
    """What an hour of evolution towards a broken bound came to (``make search``)."""
    assert search.ratio(search.recipe_of({key: value for key, value in record.items() if key != "ratio"})) <= 1
