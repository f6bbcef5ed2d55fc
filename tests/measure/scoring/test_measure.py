"""The line of a scan says what the spectrum and the plan of a weight say, field by field."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectrum_fast.errors import TensorError, UnsupportedDtypeError, UsageError
from spectrum_fast.measure.scoring.measure import score_weight, spectrum
from spectrum_fast.measure.scoring.records import ModuleScore
from spectrum_fast.measure.spectra.histogram import Histogram
from spectrum_fast.measure.spectra.record import ErrorBounds, Spectrum
from spectrum_fast.read.checkpoint.tensor_ref import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan

FOUND = Spectrum(
    shape=(6, 4),
    criterion="spectrum",
    snr=1.5,
    noise_free=False,
    s_max=9.0,
    s_min=0.5,
    q25=1.0,
    q50=2.0,
    q75=3.0,
    threshold=2.5,
    signal_sum=11.0,
    noise_sum=4.0,
    n_signal=3,
    n_noise=1,
    frobenius_residual=1e-9,
    error_bound=1e-6,
    method="band-float32",
    reason="outliers",
    errors=ErrorBounds(1e-7, 1e-7, 1e-7, 1e-7, 1e-6, 1e-7, 1e-6, 1e-6, n_undecided=0),
    histogram=Histogram(0.0, 9.0, 9.0, 2, (1, 3)),
)
HOME = "model.layers.3.mlp.experts"


def plan(**more) -> WeightPlan:
    stored = TensorRef(f"{HOME}.up_proj", Path("m.safetensors"), "U8", (2, 6, 2), 100, 24)
    return WeightPlan(**{"name": f"{HOME}.1.up_proj", "parameter": stored.name, "main": stored, **more})


def test_every_figure_of_the_spectrum_is_kept_under_its_name():
    scored = score_weight(plan(), (6, 4), FOUND)
    shared = {entry.name for entry in fields(ModuleScore)} & {entry.name for entry in fields(Spectrum)}
    assert shared >= {"snr", "s_max", "s_min", "q25", "q50", "q75", "threshold", "error_bound", "method", "histogram"}
    for key in shared:
        assert getattr(scored, key) == getattr(FOUND, key), key


def test_names_types_and_shapes_come_from_the_plan():
    scored = score_weight(plan(parts=2, whole_shape=(2, 6, 4)), (6, 4), FOUND)
    assert (scored.name, scored.parameter) == (f"{HOME}.1.up_proj", f"{HOME}.up_proj")
    assert (scored.type, scored.dtype, scored.shape) == ("mlp.experts.1.up_proj", "U8", (6, 4))
    assert (scored.parts, scored.parameter_shape) == (2, (2, 6, 4))


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({}, "outliers"),
        ({"expert": 1}, f"expert 1 of {HOME}.up_proj; outliers"),
        ({"decoder": "mxfp4", "layout": "MXFP4"}, "decoded from MXFP4; outliers"),
    ],
)
def test_the_note_says_how_the_matrix_was_had_and_why_that_method(more, note):
    assert score_weight(plan(**more), (6, 4), FOUND).note == note


def test_a_short_side_below_the_range_of_the_corrected_rule_is_noted():
    caution = "short side below 32: up to 8 % of pure noise lies above the mp edge"
    for criterion, shape, noted in (("mp", (31, 99), True), ("mp", (99, 32), False), ("spectrum", (31, 99), False)):
        scored = score_weight(plan(), shape, replace(FOUND, criterion=criterion, shape=shape))
        assert (scored.note == f"outliers; {caution}") is noted


def test_a_noise_free_spectrum_has_no_score():
    free = Spectrum(
        **{**{entry.name: getattr(FOUND, entry.name) for entry in fields(Spectrum)}, "snr": None, "noise_free": True}
    )
    scored = score_weight(plan(), (6, 4), free)
    assert (scored.snr, scored.noise_free) == (None, True)


def test_the_options_of_spectrum_reach_the_engine():
    weight = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    assert spectrum(weight).criterion == "spectrum"
    assert spectrum(weight, criterion="mp").criterion == "mp"
    assert spectrum(weight, method="svd").method == "svd-float64"
    assert spectrum(weight, method="band", precision="float64").method == "band-float64"
    assert spectrum(weight, method="band", precision="float32").method.startswith("band-float32")
    assert spectrum(weight, method="band").method.startswith("band-float32")
    assert spectrum(weight, method="band", tolerance=1e-9).method == "band-float64"
    options: list[dict[str, Any]] = [{"criterion": "x"}, {"method": "x"}, {"precision": "x"}, {"tolerance": -1.0}]
    for option in options:
        with pytest.raises(UsageError):
            spectrum(weight, **option)


def test_a_numpy_array_is_scored_as_the_tensor_of_its_values() -> None:
    weight = torch.randn(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    array = weight.numpy().copy()
    array.flags.writeable = False
    assert spectrum(array) == spectrum(weight)
    assert spectrum(array[::-1].T) == spectrum(weight.flip(0).T)
    assert spectrum(array.astype(np.float16)).snr == spectrum(weight.half()).snr
    with pytest.raises(TensorError, match="expected a torch tensor or a NumPy array, found list"):
        spectrum([[1.0]])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TensorError, match="expected an array of floating-point numbers, found one of <U1"):
        spectrum(np.array([["a"]]))
    with pytest.raises(UnsupportedDtypeError, match="int64"):
        spectrum(np.array([[1]]))
