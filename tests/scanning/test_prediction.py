"""What a dry run says of time: the law behind it, and what it tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.make_checkpoint import write_checkpoint
from spectrum_fast.measure.scoring.records import ScanFailure
from spectrum_fast.read.checkpoint import TensorRef
from spectrum_fast.read.formats.weight_plan import WeightPlan
from spectrum_fast.scanning import prediction
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.prediction import predict_scan
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.scoring import open_and_plan


def weight(rows: int, columns: int) -> WeightPlan:
    ref = TensorRef("w", Path("m.safetensors"), "BF16", (rows, columns), 0, rows * columns * 2)
    return WeightPlan("w", "w.weight", ref)


def timed(rows: int, columns: int, law) -> tuple[WeightPlan, ModuleResult]:
    found = ScanFailure(name="w", kind="x", message="x")
    return weight(rows, columns), ModuleResult(found, compute_seconds=law(rows, columns))


SHAPES = ((64, 64), (48, 256), (512, 128), (300, 700))


def test_times_that_follow_the_law_are_told_exactly() -> None:
    """Gram and reduction each at a rate of its own, in whatever orientation."""

    def law(rows: int, columns: int) -> float:
        short, long = sorted((rows, columns))
        return 3e-11 * long * short**2 + 7e-10 * short**3

    tried = [timed(*shape, law) for shape in SHAPES]
    for shape in ((4096, 14336), (128256, 4096)):
        assert prediction._by_work(weight(*shape), tried) == pytest.approx(law(*shape), rel=1e-6)


def test_too_few_or_too_odd_times_still_tell_something() -> None:
    assert prediction._by_work(weight(9, 9), []) == 0
    alone = [timed(100, 100, lambda *_: 1.0)]
    assert prediction._by_work(weight(200, 200), alone) == pytest.approx(8.0)
    odd = [timed(*shape, lambda rows, columns: 1 / (rows * columns)) for shape in SHAPES]
    assert prediction._by_work(weight(600, 1400), odd) > 0


def test_each_kind_is_tried_once_while_the_time_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_checkpoint(tmp_path / "model", like="tiny", layers=8).path
    options = ScanOptions(threads=1)
    _, plan = open_and_plan(model, options)
    kinds = {entry.matrix_shape for entry in plan.weights}
    found = predict_scan(plan, options)
    assert (found.tried, found.kinds) == (len(kinds), len(kinds))
    assert found.seconds == max(found.read_seconds, found.compute_seconds) > 0
    monkeypatch.setattr(prediction, "_BUDGET_SECONDS", 0.0)
    assert predict_scan(plan, options).tried == 0
