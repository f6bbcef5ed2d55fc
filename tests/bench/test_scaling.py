"""The model of many cores, and the clock of the kernels that it stands on."""

from __future__ import annotations

import pytest
import torch

from bench.scaling import Costs, Machine, costs_of
from bench.stages import kernel_seconds
from spectrum_fast.measure.ops.dispatch import native_problem
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra.engine import compute_spectra

MACHINE = Machine(core_bandwidth=10e9, bandwidth=100e9, region=2e-6)
COSTS = Costs(kernels=1.0, between=0.02, nbytes=4e9, panels=128)


def test_one_core_takes_as_long_either_way() -> None:
    assert COSTS.shared(MACHINE, 1) == pytest.approx(COSTS.one_each(MACHINE, 1)) == pytest.approx(1.02)


def test_sharing_out_pays_for_what_lies_between_and_for_every_panel() -> None:
    assert COSTS.shared(MACHINE, 2) == pytest.approx(0.5 + 0.02 + 128 * 10 * 2e-6)
    assert COSTS.one_each(MACHINE, 2) == pytest.approx(0.51)


def test_neither_is_faster_than_memory_or_than_python() -> None:
    assert COSTS.one_each(MACHINE, 32) == pytest.approx(4e9 / 100e9)
    assert COSTS.one_each(MACHINE, 1024) == pytest.approx(0.04)
    assert Costs(1.0, 0.1, 0.0, 128).one_each(MACHINE, 1024) == pytest.approx(0.1)


@pytest.mark.skipif(native_problem() is not None, reason=str(native_problem()))
def test_the_clock_sees_every_kernel_and_goes_away() -> None:
    weights = torch.randn(2, 260, 520, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with kernel_seconds() as seconds:
        compute_spectra(weights, find_criterion("spectrum"))
    expected = {"measure", "gram", "multiply", "reduce_to_band", "multiply_band"}
    expected |= {"count_below", "narrow", "log_abs_det"}
    assert set(seconds) == expected
    assert min(seconds.values()) > 0
    found = costs_of((260, 520), {**seconds, "between": 0.5, "all": 2.0})
    assert (found.kernels, found.between, found.nbytes) == (1.5, 0.5, 0.0)
    compute_spectra(weights, find_criterion("spectrum"))
    assert set(seconds) == expected
