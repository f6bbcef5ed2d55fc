"""The score of a fused parameter: that of the block-diagonal matrix of its parts, and what odd parts do to it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import spectrum_fast as sf
from spectrum_fast.choose.selection.formats.scan_file import format_scan
from spectrum_fast.choose.selection.fused import competing_modules, fused_modules
from spectrum_fast.choose.selection.scan_result import Scan, parse_scan
from spectrum_fast.errors import TensorError, UsageError
from spectrum_fast.measure.scoring.records import ModuleScore, ScanFailure

from support import matrices

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


def bare_part(expert: int, **values) -> ModuleScore:
    return ModuleScore(
        name=f"{HOME}.{expert}.up_proj", type="t", parameter=f"{HOME}.up_proj", parts=2, shape=(4, 6), **values
    )


def weights() -> list[torch.Tensor]:
    return [matrices.trained_like(40, 60, seed=e).to(torch.float32) * (1 + e) for e in range(4)]


def merged(parts: list[ModuleScore], criterion: str = "spectrum", **more) -> ModuleScore:
    (module,) = competing_modules(Scan("m", criterion, tuple(parts), **more))
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


@pytest.mark.parametrize("criterion", ["spectrum", "mp"])
def test_parts_without_any_signal_score_0(criterion):
    quiet = {"snr": 0.0, "signal_sum": 0.0, "noise_sum": 2.0, "s_max": 1.0, "s_min": 0.5, "threshold": 1.5}
    parts = [bare_part(e, n_signal=0, n_noise=3, **quiet) for e in range(2)]
    found = merged(parts, criterion)
    assert (found.snr, found.noise_free, found.noise_sum, found.n_noise, found.s_min) == (0.0, False, 4.0, 6, 0.5)
    assert (found.signal_sum, found.n_signal) == (0.0, 0)


def test_every_figure_of_the_parameter_is_put_together_from_its_parts():
    values = {"snr": 1.0, "threshold": 0.4, "dtype": "BF16", "parameter_shape": (2, 4, 6)}
    one = bare_part(
        0, s_max=0.5, s_min=0.2, signal_sum=3.0, noise_sum=2.0, n_signal=3, n_noise=1, error_bound=1e-6, **values
    )
    other = bare_part(1, s_max=0.4, s_min=0.3, signal_sum=1.0, noise_sum=0.5, n_signal=1, n_noise=4, **values)
    found = merged([one, other])
    assert (found.name, found.type, found.parameter) == (f"{HOME}.up_proj", "mlp.experts.up_proj", f"{HOME}.up_proj")
    assert (found.shape, found.dtype, found.method, found.note) == ((2, 4, 6), "BF16", "fused", "2 parts")
    assert (found.s_max, found.s_min, found.signal_sum, found.noise_sum) == (0.5, 0.2, 4.0, 2.5)
    assert (found.n_signal, found.n_noise, found.error_bound) == (4, 5, pytest.approx(3e-6, rel=1e-5))
    assert found.snr == pytest.approx(4.0 / 2.5 / 0.5)
    assert merged([replace(one, error_bound=None), other]).error_bound == 0.0
    assert merged([replace(one, error_bound=1e150), other]).error_bound == pytest.approx(1e300)


def test_a_parameter_that_is_scored_whole_is_not_fused():
    values = {"snr": 1.0, "s_max": 1.0, "s_min": 0.5, "threshold": 0.7, "signal_sum": 1.0, "noise_sum": 1.0}
    plain = replace(bare_part(0, n_signal=1, n_noise=1, **values), parts=None)
    record = Scan("m", "spectrum", (plain,))
    assert fused_modules(record) == ()
    assert competing_modules(record) == (plain,)
    assert '"fused"' not in format_scan(record)


def test_dead_and_noise_free_parts_in_the_figures():
    values = {"threshold": 0.1, "parameter_shape": (2, 4, 6)}
    dead = bare_part(0, snr=0.0, s_max=0.0, s_min=0.0, signal_sum=0.0, noise_sum=0.0, n_signal=0, n_noise=4, **values)
    free = bare_part(
        1,
        snr=None,
        noise_free=True,
        s_max=0.5,
        s_min=0.25,
        signal_sum=1.5,
        noise_sum=0.0,
        n_signal=4,
        n_noise=0,
        error_bound=1e-3,
        **values,
    )
    found = merged([dead, free])
    assert (found.noise_free, found.snr, found.error_bound) == (True, None, pytest.approx(1.001**3 - 1))
    assert (found.s_max, found.s_min, found.n_signal, found.n_noise) == (0.5, 0.0, 4, 4)
    assert found.note == "2 parts, 1 of them noise-free"


def test_a_part_whose_threshold_is_zero_does_not_decide_the_score():
    """More than half of its values are zero, so that the law finds no noise in it."""
    sums = {"snr": 1.0, "signal_sum": 3.0, "noise_sum": 2.0, "s_min": 0.0, "n_signal": 3, "n_noise": 3}
    parts = [bare_part(0, s_max=100.0, threshold=0.0, **sums), bare_part(1, s_max=2.0, threshold=0.5, **sums)]
    assert merged(parts, "mp").snr == pytest.approx(6 / 4 * (0.5 / 2))


def test_parts_of_another_program_that_contradict_themselves_are_no_crash():
    odd = {"snr": 5.0, "signal_sum": 3.0, "noise_sum": 0.0, "s_max": 1.0, "s_min": 0.5, "threshold": 0.1}
    assert merged([bare_part(e, n_signal=3, n_noise=0, **odd) for e in range(2)]).snr == 0.0


def test_sums_too_large_for_a_number_give_no_score():
    huge = {"snr": 5.0, "signal_sum": 1e308, "noise_sum": 1.0, "s_max": 1e308, "s_min": 0.5, "threshold": 2.0}
    record = Scan("m", "spectrum", tuple(bare_part(e, n_signal=1, n_noise=1, **huge) for e in range(2)))
    assert fused_modules(record) == ()
    with pytest.raises(TensorError, match=r"experts\.up_proj: snr must be a finite number >= 0, found inf"):
        competing_modules(record)


def test_the_error_bound_covers_the_parts():
    stack = [part(e, w) for e, w in enumerate(weights())]
    assert merged(stack).error_bound == pytest.approx(3 * max(p.error_bound for p in stack), rel=0.01)


def test_a_parameter_with_a_failed_part_has_no_score():
    failure = ScanFailure(name=f"{HOME}.3.up_proj", kind="values", message="NaN", parameter=f"{HOME}.up_proj")
    stack = [part(e, w) for e, w in enumerate(weights()[:3])]
    record = Scan("m", "spectrum", tuple(stack), (failure,))
    assert competing_modules(record) == ()
    assert parse_scan(format_scan(record)) == record


def test_a_part_left_out_of_the_scan_is_said():
    assert merged([part(e, w) for e, w in enumerate(weights()[:3])]).note == "3 of 4 parts, the others left out"


def test_the_scan_file_shows_the_fused_score_and_reads_back_equal():
    record = Scan("m", "spectrum", tuple(part(e, w) for e, w in enumerate(weights())))
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
        competing_modules(Scan("m", "spectrum", (bare,)))
    assert fused_modules(Scan("m", "spectrum", (bare,))) == ()
    with pytest.raises(UsageError, match=r"^unknown fused 'some': expected one of parameter, parts$"):
        competing_modules(Scan("m", "spectrum", (bare,)), "some")
