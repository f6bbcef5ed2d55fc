"""The score of a fused parameter: that of the block-diagonal matrix of its parts, and what odd parts do to it."""

from __future__ import annotations

import json

import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.errors import UsageError
from spectrum_fast.scoring.fused import competing_modules, fused_modules
from spectrum_fast.scoring.records import ModuleScore, ScanFailure, ScanRecord
from spectrum_fast.scoring.scan_file import format_scan, parse_scan

import matrices

HOME = "model.layers.0.mlp.experts"


def part(expert: int, weight: torch.Tensor, criterion: str = "spectrum", count: int = 4) -> ModuleScore:
    found = sf.spectrum(weight, criterion=criterion)
    keys = ("snr", "noise_free", "s_max", "s_min", "threshold", "signal_sum", "noise_sum", "n_signal", "n_noise")
    return ModuleScore(
        name=f"{HOME}.{expert}.up_proj",
        type=f"mlp.experts.{expert}.up_proj",
        parameter=f"{HOME}.up_proj",
        shape=tuple(weight.shape),
        dtype="F32",
        error_bound=found.error_bound,
        parts=count,
        parameter_shape=(count, *weight.shape),
        **{key: getattr(found, key) for key in keys},
    )


def weights() -> list[torch.Tensor]:
    return [matrices.trained_like(40, 60, seed=e).to(torch.float32) * (1 + e) for e in range(4)]


def merged(parts: list[ModuleScore], criterion: str = "spectrum", **more) -> ModuleScore:
    (module,) = competing_modules(ScanRecord("m", criterion, tuple(parts), **more))
    return module


@pytest.mark.parametrize("criterion", ["spectrum", "mp"])
def test_the_score_is_that_of_the_block_diagonal_matrix(criterion):
    stack = weights()
    found = merged([part(e, w, criterion) for e, w in enumerate(stack)], criterion)
    all_values = torch.linalg.svdvals(torch.block_diag(*stack).double())
    signal = noise = 0.0
    factors = []
    for weight in stack:
        values = torch.linalg.svdvals(weight.double())
        threshold = sf.spectrum(weight, criterion=criterion).threshold
        signal += float(values[values > threshold].sum())
        noise += float(values[values <= threshold].sum())
        factors.append((threshold if criterion == "mp" else 1.0) / float(values[0]))
    assert signal + noise == pytest.approx(float(all_values.sum()), rel=1e-9)
    assert found.snr == pytest.approx(signal / noise * min(factors), rel=1e-6)
    assert found.s_max == pytest.approx(float(all_values[0]))
    assert (found.name, found.type, found.parameter) == (f"{HOME}.up_proj", "mlp.experts.up_proj", f"{HOME}.up_proj")
    assert (found.shape, found.n_signal + found.n_noise) == ((4, 40, 60), 160)


def test_mp_does_not_change_with_the_scale_of_a_part():
    stack = weights()
    same = [merged([part(0, stack[0] * scale, "mp"), part(1, stack[0] * scale, "mp")], "mp") for scale in (1.0, 64.0)]
    assert same[0].snr == pytest.approx(same[1].snr)
    assert same[0].snr == pytest.approx(part(0, stack[0], "mp").snr)


def test_equal_parts_score_as_one_of_them():
    weight = weights()[0]
    assert merged([part(e, weight) for e in range(4)]).snr == pytest.approx(part(0, weight).snr)


def test_a_noise_free_part_adds_signal_and_a_dead_one_nothing():
    weight = weights()[0]
    noise_free, dead, normal = part(0, torch.eye(40, 60)), part(1, torch.zeros(40, 60)), part(2, weight)
    assert noise_free.noise_free
    assert dead.snr == 0
    found = merged([noise_free, dead, normal])
    assert found.snr == pytest.approx((normal.signal_sum + 40) / normal.noise_sum / max(1.0, normal.s_max))
    assert "1 of them noise-free" in found.note
    assert merged([dead, normal]).snr == pytest.approx(normal.snr)
    assert merged([noise_free, dead]).noise_free
    assert merged([dead, part(2, torch.zeros(40, 60))]).snr == 0


def test_the_error_bound_covers_the_parts():
    stack = [part(e, w) for e, w in enumerate(weights())]
    assert merged(stack).error_bound == pytest.approx(3 * max(p.error_bound for p in stack), rel=0.01)


def test_a_parameter_with_a_failed_part_has_no_score():
    failure = ScanFailure(name=f"{HOME}.3.up_proj", kind="values", message="NaN", parameter=f"{HOME}.up_proj")
    stack = [part(e, w) for e, w in enumerate(weights()[:3])]
    record = ScanRecord("m", "spectrum", tuple(stack), (failure,))
    assert competing_modules(record) == ()
    assert parse_scan(format_scan(record)) == record


def test_a_part_left_out_of_the_scan_is_said():
    assert merged([part(e, w) for e, w in enumerate(weights()[:3])]).note == "3 of 4 parts, the others left out"


def test_the_scan_file_shows_the_fused_score_and_reads_back_equal():
    record = ScanRecord("m", "spectrum", tuple(part(e, w) for e, w in enumerate(weights())))
    text = format_scan(record)
    document = json.loads(text)
    (entry,) = document["fused"]
    assert (entry["name"], entry["snr"]) == (f"{HOME}.up_proj", fused_modules(record)[0].snr)
    assert document["modules"][0]["parts"] == 4
    assert parse_scan(text) == record
    del document["fused"]
    assert parse_scan(json.dumps(document)) == record


def test_parts_without_sums_are_refused_by_name():
    bare = ModuleScore(name="a.experts.0.up", type="a", snr=1.0, parameter="a.experts.up", parts=2)
    with pytest.raises(UsageError, match=r"a\.experts\.up: expected signal and noise sums of all its parts"):
        competing_modules(ScanRecord("m", "spectrum", (bare,)))
    assert fused_modules(ScanRecord("m", "spectrum", (bare,))) == ()
    with pytest.raises(UsageError, match="unknown fused 'some'"):
        competing_modules(ScanRecord("m", "spectrum", (bare,)), "some")
