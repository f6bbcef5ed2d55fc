"""The cost model of the GPU engine: its counts are those of the engine's own steps, its times those of its formulas."""

from __future__ import annotations

import pytest
import torch

from bench.gpu import model
from bench.gpu.models import MODELS
from spectrum_fast.measure.ops.band import reference, workspace
from spectrum_fast.measure.ops.band.panels import STEPS, UPDATE
from spectrum_fast.measure.ops.dispatch import MODEL, use_backend
from spectrum_fast.measure.scoring.criteria import find_criterion
from spectrum_fast.measure.spectra import counts
from spectrum_fast.measure.spectra.engine import compute_spectra
from spectrum_fast.measure.spectra.probes import IN_MEMORY

from support import matrices

H200 = model.DEVICES[1]


def stage(name: str, shape: tuple[int, int], count: int, **engine: object) -> model.Stage:
    parts = model.stages(shape, count, 2, H200, model.Engine(**engine))  # type: ignore[arg-type]
    return next(part for part in parts if part.name == name)


@pytest.mark.parametrize("group", [1, 4])
def test_rounds_shifts_and_launches_are_those_of_the_engine(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine in its GPU's order of steps, watched where the model counts."""
    asked: list[int] = []
    done: list[str] = []
    below = counts.count_below

    def count_below(bands: object, shifts: torch.Tensor) -> torch.Tensor:
        asked.append(shifts.shape[1])
        return below(bands, shifts)  # type: ignore[arg-type]

    monkeypatch.setattr(counts, "count_below", count_below)
    monkeypatch.setattr(workspace, "panels_together", lambda _: group)
    for name in (*STEPS, UPDATE):
        step = getattr(reference, name)
        monkeypatch.setattr(reference, name, lambda w, index, a=(name, step): done.append(a[0]) or a[1](w, index))
    weights = [matrices.trained_like(300, 340, outliers=(3.0,), seed=seed).bfloat16() for seed in range(3)]
    with use_backend(MODEL):
        found = compute_spectra(weights, find_criterion("spectrum"))
    assert all(getattr(one, "method", "") == "band-float32" for one in found)
    assert asked == model.rounds_of_counts(3)
    launches = [stage(name, (300, 340), 3, deferred=group).launches for name in ("sweeps", "panels")]
    assert done.count("sweep") == launches[0]
    if group > 1:
        launches.append(stage("updates", (300, 340), 3, deferred=group).launches)
        assert done.count(UPDATE) == launches[-1] == 2
    assert len(done) == sum(launches)


def test_counts_of_a_wide_matrix_are_those_by_hand() -> None:
    gram, probes = (stage(name, (8192, 28672), 1) for name in ("gram", "probes"))
    sweeps = stage("sweeps", (8192, 28672), 1, deferred=1)
    assert gram.products == pytest.approx(8192 * 8193 * 28672)
    assert sweeps.launches == 255
    assert sweeps.bytes == pytest.approx(8 * 8192**3 / (3 * 32), rel=0.01)
    assert sweeps.products == pytest.approx(6 * 8192**3, rel=0.01)
    reading, updates = (stage(name, (8192, 28672), 1, deferred=4) for name in ("sweeps", "updates"))
    assert reading.bytes == pytest.approx(sweeps.bytes / 2)
    assert updates.bytes == pytest.approx(sweeps.bytes * 0.75 / 4, rel=0.02)
    assert reading.products + updates.products == pytest.approx(4 * 8192**3, rel=0.02)
    powers = IN_MEMORY.powers
    assert probes.bytes == pytest.approx(powers * (2 * 2 * 8192 * 28672 + 4 * 8192**2), rel=0.2)
    widened = stage("probes", (8192, 28672), 1, probes_widen=True)
    assert widened.bytes == pytest.approx(powers * (2 * 18 * 8192 * 28672 + 20 * 8192**2))
    assert widened.bytes > 7 * probes.bytes


@pytest.mark.parametrize("device", model.DEVICES, ids=lambda device: device.name)
def test_no_stage_is_predicted_below_its_floor_and_no_change_that_was_made_costs(device: model.Device) -> None:
    for shape, count, itemsize in model.CASES:
        for part in model.stages(shape, count, itemsize, device, model.Engine()):
            assert part.seconds(device) >= part.floor(device) > 0, part
    for name in MODELS:
        before, _ = model.model_seconds(name, device, model.BEFORE)
        now, floor = model.model_seconds(name, device, model.Engine())
        assert floor < now < before


def test_the_engine_as_it_stands_has_every_change_that_was_made() -> None:
    fields = {name: value for change in model.MADE.values() for name, value in change.items()}
    assert model.Engine() == model.Engine(**fields)
    again = {"batch_bytes", "deferred", "small_step_cycles"}  # other values of what was changed
    assert not any(name in fields for change in model.WEIGHED.values() for name in change if name not in again)


def test_every_figure_is_called_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    assert model.main(["--device", "H100"]) == 0
    said = capsys.readouterr().out
    assert said.count("predicted on one H100") == len(model.CASES) + 1
    for change in (*model.MADE, *model.WEIGHED):
        assert change in said
    assert "measured" not in said
